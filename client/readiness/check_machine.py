"""Check that the machine has the disk, memory and device that site.yaml counts on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from client.readiness.check_finding import Finding, Subject

_GIB = 1 << 30
_LITTLE_GIB, _TOO_LITTLE_GIB = 10.0, 1.0


def disk(subject: Subject) -> Iterator[Finding]:
    """Look how much room is left where the site keeps its own files."""
    home = subject.home
    place = next(p for p in (home.folder, *home.folder.parents) if p.exists())
    yield room(shutil.disk_usage(place).free / _GIB, str(home.folder), str(home.cache))


def room(free_gib: float, folder: str, cache: str) -> Finding:
    """Judge so many GiB of free space."""
    detail = f"{free_gib:.1f} GiB free in {folder}"
    if free_gib < _TOO_LITTLE_GIB:
        fix = f"Free some; {cache} may be deleted while the daemon is stopped."
        return Finding(check="disk", state="wrong", detail=detail, fix=fix)
    if free_gib < _LITTLE_GIB:
        return Finding(check="disk", state="note", detail=f"{detail}; prepared images need room")
    return Finding(check="disk", state="ok", detail=detail)


def memory(subject: Subject) -> Iterator[Finding]:
    """Compare the limit with what the machine has."""
    if subject.config is None:
        return
    limit = subject.config.memory_gib
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    if limit is not None and limit > there:
        yield Finding(
            check="memory",
            state="wrong",
            detail=f"memory_gib is {limit:g}, and this machine has {there:.1f} GiB",
            fix=f"Write a smaller memory_gib into {subject.home.site_yaml}.",
        )
        return
    said = "no limit" if limit is None else f"limit {limit:g} GiB"
    yield Finding(check="memory", state="ok", detail=f"{said}; {there:.1f} GiB in all")


def gpu(subject: Subject) -> Iterator[Finding]:
    """Look for the device that networks would train on."""
    if subject.config is None:
        return
    import torch

    from client.training.device import device_of

    device = device_of(subject.config.device)
    if device.type == "cuda":
        yield Finding(check="GPU", state="ok", detail=torch.cuda.get_device_name(device))
        return
    threads = subject.config.threads or torch.get_num_threads()
    why = "site.yaml says cpu" if subject.config.device == "cpu" else "torch finds none"
    yield Finding(check="GPU", state="note", detail=f"{why}; training takes {threads} threads")
