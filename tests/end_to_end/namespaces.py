"""A network namespace for each site: it reaches one address of this machine, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: Of the coordinator, as all sites see it; another for each process that tests.
_NUMBER = os.getpid() % 256
COORDINATOR = f"10.213.{_NUMBER}.1"


@contextmanager
def separated(names: Sequence[str]) -> Iterator[dict[str, list[str]] | None]:
    """Yield what runs a command in each site's namespace; None where the machine has none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield None
        return
    places = {name: f"wr{os.getpid()}{number}" for number, name in enumerate(names)}
    try:
        allowed = _ip("addr", "add", f"{COORDINATOR}/32", "dev", "lo") and all(
            _connected(place, number) for number, place in enumerate(places.values())
        )
        runs_in = {name: ["ip", "netns", "exec", place] for name, place in places.items()}
        yield runs_in if allowed else None
    finally:
        for place in places.values():
            _ip("netns", "delete", place)  # its cable goes with it
        _ip("addr", "delete", f"{COORDINATOR}/32", "dev", "lo")


def _connected(place: str, number: int) -> bool:
    """Make a namespace with a cable to this one."""
    near, far = f"10.214.{_NUMBER}.{4 * number + 1}", f"10.214.{_NUMBER}.{4 * number + 2}"
    inside = ("-n", place)
    return all(
        (
            _ip("netns", "add", place),
            _ip("link", "add", place, "type", "veth", "peer", "name", "eth0", "netns", place),
            _ip("addr", "add", f"{near}/30", "dev", place),
            _ip("link", "set", place, "up"),
            _ip(*inside, "addr", "add", f"{far}/30", "dev", "eth0"),
            _ip(*inside, "link", "set", "eth0", "up"),
            _ip(*inside, "link", "set", "lo", "up"),
            _ip(*inside, "route", "add", COORDINATOR, "via", near),
        )
    )


def _ip(*words: str) -> bool:
    done = subprocess.run(["ip", *words], capture_output=True, check=False)  # noqa: S607 - wherever it is
    return done.returncode == 0
