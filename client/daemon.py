"""The site's daemon: keeps in touch with the coordinator, and one worker at work, for ever.

`run_daemon` is what `wardround-site start` calls. It ends on SIGTERM or Ctrl-C within a few
seconds; whatever it was at, the next start goes on with.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from client.admission import House
from client.approvals import Approvals
from client.coordinator import Coordinator, load_authority, load_coordinator
from client.correspondence import Correspondence, Desktop
from client.disclosures import Disclosures
from client.fleet import HEARTBEAT_SECONDS, Fleet
from client.home import Home
from client.inbox import Inbox
from client.outbox import Outbox
from client.site_config import SiteConfig, load_site_config
from client.site_status import Status
from client.worker_process import WorkerProcess
from common.errors import ConfigurationError, LinkDown, RunFailed, SiteUnknown
from common.identity import load_private
from common.logs import log, open_logs

#: A site with nothing to do hears of a request at once; it looks up this often for its own sake.
_IDLE_SECONDS = 2.0
_BUSY_SECONDS = 0.1
_LONGEST_PAUSE = 10.0
#: What of site.yaml the worker has read when it started.
_OF_WORKER = ("name", "data", "labels", "device", "memory_gib", "threads")
_log = log("site")


def run_daemon(home: Home, *, json_logs: bool = False) -> None:
    """Serve until told to stop.

    ConfigurationError when the site has not joined or site.yaml is wrong; RunFailed when
    another daemon serves this home.
    """
    config, coordinator = load_site_config(home.site_yaml), load_coordinator(home)
    with _locked(home.lock), open_logs(home.log, json=json_logs, name="site"), _stopping() as stop:
        worker_log = home.log / "worker.log"
        with worker_log.open("ab") as output:
            worker = WorkerProcess(home.folder, output)
            daemon = _Daemon(home, config, coordinator, worker)
            try:
                daemon.serve(stop)
            finally:
                daemon.close()


@dataclass
class _Link:
    """The connection, while there is one."""

    fleet: Fleet
    node_id: int


class _Daemon:
    """One daemon's life; everything that must survive it is in the home's files."""

    def __init__(
        self, home: Home, config: SiteConfig, coordinator: Coordinator, worker: WorkerProcess
    ) -> None:
        self._home, self._config, self._coordinator = home, config, coordinator
        self._changed_at = _changed_at(home.site_yaml)
        self._key = load_private(home.key)
        self._worker = worker
        self._link: _Link | None = None
        self._beating = threading.Event()
        self._letters = self._correspondence()
        self._status = Status(home.status, coordinator.address)
        self._pause = 0.25

    def serve(self, stop: threading.Event) -> None:
        """Turn after turn, until `stop`."""
        _log.info("started", site=self._config.name, coordinator=self._coordinator.address)
        while not stop.is_set():
            self._reload()
            pause = self._turn()
            self._tell_status()
            stop.wait(pause)
        _log.info("stopping")

    def close(self) -> None:
        """Say good-bye, end the worker, and leave a status that says so."""
        self._beating.set()
        self._worker.stop()
        if self._link is not None:
            with suppress(LinkDown, SiteUnknown):
                self._link.fleet.deactivate(self._link.node_id)
            self._link.fleet.close()
        self._status.write(state="stopped", sentence="not running; type: wardround-site start")

    def _turn(self) -> float:
        """Do what can be done now; returns how long to wait before the next turn."""
        try:
            link = self._link or self._connect()
            moved = self._letters.turn(link.fleet, _IDLE_SECONDS)
        except (LinkDown, SiteUnknown) as error:
            self._letters.work()
            return self._down(error)
        self._pause = 0.25
        if moved:
            return 0.0
        return _BUSY_SECONDS if self._letters.open else 0.0

    def _connect(self) -> _Link:
        authority = load_authority(self._home, self._coordinator)
        fleet = Fleet(self._coordinator.address, authority, self._key)
        try:
            node_id = self._activate(fleet)
        except BaseException:
            fleet.close()
            raise
        (self._home.folder / "node.json").write_text(json.dumps({"node": node_id}))
        self._link = _Link(fleet, node_id)
        self._beating = threading.Event()
        beat = threading.Thread(target=_beat, args=(fleet, self._beating), daemon=True)
        beat.start()
        _log.info("connected", coordinator=self._coordinator.address)
        return self._link

    def _activate(self, fleet: Fleet) -> int:
        """Say that this site is here, in place of an earlier daemon that was killed."""
        try:
            return fleet.activate()
        except LinkDown:
            before = _known_node(self._home)
            if before is None:
                raise
            fleet.deactivate(before)
            return fleet.activate()

    def _down(self, error: LinkDown | SiteUnknown) -> float:
        """Note that the coordinator is away; returns how long to leave it alone."""
        if self._status.state != "offline" or self._status.message != str(error):
            _log.warning("not connected", why=str(error))
        self._status.offline(str(error))
        if isinstance(error, SiteUnknown) and self._link is not None:
            self._beating.set()
            self._link.fleet.close()
            self._link = None
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self._pause

    def _reload(self) -> None:
        """Take up a changed site.yaml; a wrong one is told of, and the old one stays."""
        changed_at = _changed_at(self._home.site_yaml)
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        try:
            config = load_site_config(self._home.site_yaml)
        except ConfigurationError as error:
            _log.error("site.yaml is wrong; what was in force stays", why=str(error))
            return
        old, self._config = self._config, config
        if any(getattr(old, n) != getattr(config, n) for n in _OF_WORKER) or (
            old.policy != config.policy
        ):
            self._worker.stop()
        self._letters.house = self._house()
        _log.info("site.yaml read again")

    def _correspondence(self) -> Correspondence:
        home = self._home
        desk = Desktop(
            name=self._config.name, to=self._coordinator.name, key=self._key,
            inbox=Inbox(home.inbox), outbox=Outbox(home.outbox),
            disclosures=Disclosures(home.disclosures), worker=self._worker, tell=_tell,
        )  # fmt: skip
        return Correspondence(desk, self._house())

    def _house(self) -> House:
        return House(
            config=self._config, coordinator=self._coordinator.fingerprint,
            paused=self._home.paused, approvals=Approvals(self._home.approvals),
        )  # fmt: skip

    def _tell_status(self) -> None:
        traffic = self._letters.traffic
        facts = {
            "bytes_sent": traffic.sent, "bytes_received": traffic.received,
            "worker": {"pid": self._worker.pid, "restarts": self._worker.restarts},
        }  # fmt: skip
        if self._status.state == "offline" and self._pause > 0.25:
            self._status.write(**facts)
            return
        question = self._letters.doing()
        if question is not None:
            self._status.write(
                state="working", run=question.run, round=question.round, phase=question.kind,
                sentence=f"{question.kind} of run {question.run}, round {question.round}", **facts,
            )  # fmt: skip
        elif self._home.paused.exists():
            self._status.write(
                state="paused", sentence="paused; wardround-site resume ends it", **facts
            )
        else:
            self._status.write(
                state="waiting", sentence="connected, waiting for the coordinator", **facts
            )


def _beat(fleet: Fleet, over: threading.Event) -> None:
    """Say that the site is here, often enough that one lost word does no harm."""
    while not over.wait(HEARTBEAT_SECONDS / 2):
        with suppress(LinkDown, SiteUnknown):
            fleet.heartbeat()


def _tell(event: str, facts: Mapping[str, object]) -> None:
    _log.info(event, **facts)


def _known_node(home: Home) -> int | None:
    try:
        return int(json.loads((home.folder / "node.json").read_bytes())["node"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changed_at(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the home, so that two daemons never share a ledger's answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = (
                f"Another daemon serves {path.parent} already. `wardround-site status` shows what "
                "it does; stop it first, or give another --home."
            )
            raise RunFailed(message) from error
        file.truncate(0)
        file.write(f"{os.getpid()} {datetime.now(UTC).isoformat()}\n")
        file.flush()
        yield


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn SIGTERM and Ctrl-C into an event for the time being."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
