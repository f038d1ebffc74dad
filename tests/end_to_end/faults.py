"""Faults from outside, each of which passes: kills, pauses, lines, disks, clocks, old copies.

`FAULTS` names them; each takes the scene and a draw, and returns once it is over.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.federation import Federation, RunAt, SiteAt
from tests.end_to_end.link import Link
from tests.end_to_end.processes import Program, kill_if_there

#: wardround-site on a machine whose clock is an hour ahead.
AHEAD = """
import datetime, sys, time
real, seconds = datetime.datetime, time.time
class Ahead(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(hours=1)
datetime.datetime, time.time = Ahead, lambda: seconds() + 3600
from client.cli.app import main
main()
"""


@dataclass
class Scene:
    """A federation in a run; a line of its own lies between each site and the coordinator."""

    federation: Federation
    links: Mapping[str, Link]
    disks: Mapping[str, Path]  # small file systems by who has them; empty where none may be made
    copies: Path  # a folder for what is put back
    run: RunAt

    def site(self, draw: random.Random) -> SiteAt:
        """Return one of the sites."""
        return self.federation.sites[draw.choice(sorted(self.federation.sites))]

    def processes(self, draw: random.Random) -> dict[str, int | None]:
        """Return the number of each process, of one site drawn."""
        site = self.site(draw)
        return {
            "daemon": site.program.pid,
            "worker": site.worker,
            "run": self.run.pid,
            "service": self.federation.coordinator.program.pid,
        }


Fault = Callable[[Scene, random.Random], None]


def kill_daemon(scene: Scene, draw: random.Random) -> None:
    """End a daemon; systemd starts it again."""
    site = scene.site(draw)
    site.program.kill()
    site.start()


def kill_worker(scene: Scene, draw: random.Random) -> None:
    """End a worker, as the system does when memory is short."""
    kill_if_there(scene.site(draw).worker)


def kill_run(scene: Scene, draw: random.Random) -> None:
    """End the run's process."""
    del draw
    kill_if_there(scene.run.pid)


def end_one(scene: Scene, draw: random.Random) -> None:
    """Ask a worker or the run's process to end, as a system that shuts down does."""
    pid = draw.choice([scene.site(draw).worker, scene.run.pid])
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def kill_service(scene: Scene, draw: random.Random) -> None:
    """End the coordinator; systemd starts it again after a while."""
    scene.federation.coordinator.program.kill()
    time.sleep(draw.uniform(0, 5))
    scene.federation.coordinator.start()


def lose_power(scene: Scene, draw: random.Random) -> None:
    """End everything at once; it starts again in any order."""
    programs = [site.program for site in scene.federation.sites.values()]
    programs.append(scene.federation.coordinator.program)
    draw.shuffle(programs)
    for program in programs:
        program.process.kill()
    for program in programs:
        program.kill()
    _start(scene, programs)


def upgrade(scene: Scene, draw: random.Random) -> None:
    """Stop everything in order and start it again, as for another release."""
    programs = [site.program for site in scene.federation.sites.values()]
    programs.append(scene.federation.coordinator.program)
    draw.shuffle(programs)
    for program in programs:
        program.stop()
    _start(scene, programs)


def _start(scene: Scene, programs: list[Program]) -> None:
    for program in programs:
        if program is scene.federation.coordinator.program:
            scene.federation.coordinator.start()
        else:
            program.start()


def pause_one(scene: Scene, draw: random.Random) -> None:
    """Let one process stand still."""
    found = scene.processes(draw)
    _pause([found[draw.choice(sorted(found))]], draw.uniform(5.5, 15))


def pause_all(scene: Scene, draw: random.Random) -> None:
    """Suspend the machine."""
    sites = scene.federation.sites.values()
    pids = [pid for site in sites for pid in (site.program.pid, site.worker)]
    _pause([*pids, scene.run.pid, scene.federation.coordinator.program.pid], draw.uniform(5.5, 15))


def _pause(pids: list[int | None], seconds: float) -> None:
    there = [pid for pid in pids if pid is not None]
    for pid in there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in there:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def cut(scene: Scene, draw: random.Random) -> None:
    """Break a line, and let it be whole again."""
    link = scene.links[scene.site(draw).name]
    link.cut()
    time.sleep(draw.uniform(0, 15))
    link.heal()


def cut_in_a_message(scene: Scene, draw: random.Random) -> None:
    """Break a line once some more bytes went."""
    link = scene.links[scene.site(draw).name]
    link.cut_up_at = link.up + draw.randrange(1, 400_000)
    link.cut_down_at = link.down + draw.randrange(1, 400_000)
    time.sleep(draw.uniform(1, 8))
    link.heal()


def lose_connections(scene: Scene, draw: random.Random) -> None:
    """Break every connection a few times."""
    for _ in range(6):
        for link in scene.links.values():
            link.cut()
            link.heal()
        time.sleep(draw.uniform(0.1, 1))


def slow(scene: Scene, draw: random.Random) -> None:
    """Let a line be thin for a while."""
    link = scene.links[scene.site(draw).name]
    link.up_rate = link.down_rate = draw.uniform(20_000, 200_000)
    time.sleep(draw.uniform(2, 10))
    link.heal()


def fill_disk(scene: Scene, draw: random.Random) -> None:
    """Leave somebody no room for a while."""
    if not scene.disks:  # this machine makes no file systems for tests
        return
    path = scene.disks[draw.choice(sorted(scene.disks))] / "ballast"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    time.sleep(draw.uniform(1, 10))
    path.unlink()


def set_clock(scene: Scene, draw: random.Random) -> None:
    """Let a site's clock be an hour off until its admin sets it."""
    site = scene.site(draw)
    argv = site.program.argv
    site.program.kill()
    site.program.argv = [sys.executable, "-c", AHEAD, *list(argv)[1:]]
    site.start()
    time.sleep(draw.uniform(3, 8))
    site.program.kill()
    site.program.argv = argv
    site.start()


def restore_site(scene: Scene, draw: random.Random) -> None:
    """Put a site's home back from an old copy; its admin finds the newest one later."""
    site = scene.site(draw)
    site.program.kill()
    newest = scene.copies / f"newest-{site.name}"
    _replace(newest, site.home.folder)
    _replace(site.home.folder, scene.copies / site.name)
    site.start()
    time.sleep(draw.uniform(3, 10))
    site.program.kill()
    _replace(site.home.folder, newest)
    site.start()


def restore_coordinator(scene: Scene, draw: random.Random) -> None:
    """Put the run's folder back as it was a while ago."""
    coordinator = scene.federation.coordinator
    coordinator.program.kill()
    old = scene.copies / "coordinator"
    _replace(old, coordinator.folder.path)
    coordinator.start()
    time.sleep(draw.uniform(2, 8))
    coordinator.program.kill()
    _replace(coordinator.folder.path, old)
    coordinator.start()


def _replace(to: Path, source: Path) -> None:
    """Make a folder as another is; it may be a mount itself."""
    to.mkdir(exist_ok=True)
    for path in to.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, to, dirs_exist_ok=True)


def start_twice(scene: Scene, draw: random.Random) -> None:
    """Start a second coordinator and a second daemon in the same folders."""
    for program in (scene.federation.coordinator.program, scene.site(draw).program):
        second = Program(program.argv, program.log.with_suffix(".second"), program.more)
        second.start()
        assert second.process.wait(120) != 0, second.text()


FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_daemon,
        kill_worker,
        kill_run,
        end_one,
        kill_service,
        lose_power,
        upgrade,
        pause_one,
        pause_all,
        cut,
        cut_in_a_message,
        lose_connections,
        slow,
        fill_disk,
        set_clock,
        restore_site,
        restore_coordinator,
        start_twice,
    )
}


@contextmanager
def small_disks(places: Mapping[str, Path], size: str) -> Iterator[dict[str, Path]]:
    """Mount a small file system over each folder; yields none where that is not allowed."""
    mounted: dict[str, Path] = {}
    try:
        for name, place in places.items():
            place.mkdir(parents=True, exist_ok=True)
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "wardround-test", str(place)]
            if os.geteuid() == 0:
                done = subprocess.run(mount, capture_output=True, check=False)
                mounted |= {} if done.returncode else {name: place}
        yield mounted
    finally:
        for place in mounted.values():
            subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607
