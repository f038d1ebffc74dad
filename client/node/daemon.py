"""The site's daemon: keeps in touch with the coordinator and keeps one worker running.

`run_daemon` is what `wardround-site start` calls. It ends on SIGTERM or Ctrl-C within a few
seconds; whatever it was at, the next start goes on with.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from client.governance.approvals import Approvals
from client.governance.disclosures import Disclosures
from client.governance.records_check import SiteRecords
from client.governance.repetition_limits import Seldom
from client.governance.request_admission import AdmissionContext
from client.node.message_loop import MessageLoop, TransportContext
from client.node.prometheus_metrics import SiteMeters
from client.node.reconnecting import LONGEST_PAUSE, Reconnecting
from client.node.status import Status
from client.node.worker_process import WorkerProcess
from client.site.cohort_claim import claim_cohort
from client.site.daemon_process import answering_health, locked, stopping
from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
from client.transport.coordinator import Coordinator, known_as, load_coordinator
from client.transport.inbox import Inbox
from client.transport.membership import tell_again
from client.transport.moving import look_for_notice
from client.transport.outbox import Outbox
from client.transport.quarantine import Quarantine
from common.messages.signing_key import fingerprint, load_private, public_text
from common.platform.errors import ConfigurationError, LinkDown, SiteUnknown
from common.platform.freed_memory import give_freed_memory_back
from common.platform.health import Status as HealthStatus
from common.platform.logs import log, open_logs

#: A site with nothing to do hears of a request at once; it looks up this often for its own sake.
_IDLE_SECONDS = 2.0
_BUSY_SECONDS = 0.1
#: In a long transfer the status says so often how far it is.
_TELL_SECONDS, _LOG_SECONDS = 1.0, 60.0
#: The coordinator is asked this often whether it moved, and this often where it is away.
_NOTICE_SECONDS, _NOTICE_AWAY_SECONDS = 300.0, 60.0
#: What of site.yaml the worker has read when it started.
_OF_WORKER = ("name", "data", "labels", "device", "memory_gib", "threads", "runs_at_once")
_log = log("site")


def run_daemon(home: Home, *, json_logs: bool = False) -> None:
    """Serve until told to stop.

    ConfigurationError when the site has not joined or site.yaml is wrong; RunFailed when
    another daemon serves this home.
    """
    config, homes = load_site_config(home.site_yaml), home.joined()
    if not homes:
        load_coordinator(home)  # says what to type
    claim_cohort(home, config.data)
    give_freed_memory_back()  # objects of a request pass through
    with locked(home.lock), open_logs(home.log, json=json_logs, name="site"), stopping() as stop:
        worker_log = home.log / "worker.log"
        with worker_log.open("ab") as output:
            registry = CollectorRegistry()
            meters = SiteMeters(registry)
            workers = [WorkerProcess(h.folder, output, federation=h.federation) for h in homes]
            for worker in workers:
                worker.may_work = partial(_others_rest, workers, worker)
            daemons = [_Daemon(*one, meters) for one in zip(homes, workers, strict=True)]
            with answering_health(config, registry) as health:
                _serve(daemons, stop, health)


def _others_rest(workers: Sequence[WorkerProcess], own: WorkerProcess) -> bool:
    """Return whether no other federation's worker is at work: they share machine and memory."""
    return all(worker.given is None for worker in workers if worker is not own)


def _serve(
    daemons: Sequence[_Daemon], stop: threading.Event, health: Callable[[HealthStatus], None]
) -> None:
    """Serve every federation until `stop`, or until the site has left them all.

    What ends one of them ends all, and is raised: whoever starts this again starts all of them.
    """
    faults: list[BaseException] = []

    def serve(daemon: _Daemon) -> None:
        try:
            try:
                daemon.serve(stop, health)
            finally:
                daemon.close()
        except BaseException as error:  # noqa: BLE001 - raised below
            faults.append(error)
            stop.set()

    first, *others = daemons
    threads = [threading.Thread(target=serve, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    serve(first)
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


class _Daemon:
    """One daemon's life; everything that must survive it is in the home's files."""

    def __init__(self, home: Home, worker: WorkerProcess, meters: SiteMeters) -> None:
        config, coordinator = known_as(home), load_coordinator(home)
        self._home, self._meters = home, meters
        self._config, self._coordinator = config, coordinator
        self._way = _way(config)
        self._changed_at = _changed_at(home.site_yaml)
        self._withdrawn_at = _changed_at(home.withdrawals)
        self._key_at = _changed_at(home.key)
        self._key = load_private(home.key)
        self._worker = worker
        worker.idle_seconds = _idle_seconds(config)
        worker.restarted = meters.worker_restarted
        self._connection = Reconnecting(home, coordinator, self._key)
        self._noticed_at = -math.inf
        self._coordinator_at = _changed_at(home.coordinator_json)
        self._told = Seldom(_tell)
        self._letters = self._correspondence()
        self._told_at, self._logged_at = 0.0, time.monotonic()
        self._status = Status(home.status, self._coordinator.address)

    def serve(self, stop: threading.Event, health: Callable[[HealthStatus], None]) -> None:
        """Turn after turn, until `stop`; a site that is cut off is well, and says so."""
        _log.info("started", site=self._config.name, coordinator=self._coordinator.address)
        while not stop.is_set() and self._belongs():
            self._reload()
            self._take_up_key()
            self._look_for_notice()
            try:
                pause = self._turn()
                self._tell_status()
                health("ok")
            except OSError as error:  # a full disk, mostly; what was on disk before stays good
                _log.error(
                    "cannot write",
                    file=error.filename,
                    why=error.strerror,
                    next="free some space; it goes on by itself",
                )
                health("failing")
                pause = LONGEST_PAUSE
            stop.wait(pause)
        _log.info("stopping")

    def close(self) -> None:
        """Say good-bye, end the worker, and leave a status that says so."""
        self._connection.stop_heartbeat()
        self._letters.close()
        self._told.rest()
        self._worker.stop()
        self._connection.say_good_bye()
        self._status.write(state="stopped", sentence="not running; type: wardround-site start")

    def _belongs(self) -> bool:
        """Return whether the site has not left: `wardround-site leave` may be typed meanwhile."""
        if self._home.coordinator_json.exists():
            return True
        _log.warning("this site has left its coordinator", coordinator=self._coordinator.name)
        return False

    def _take_up_key(self) -> None:
        """Go on with a changed key; between turns, so that nothing is sent with both."""
        key_at = _changed_at(self._home.key)
        if key_at == self._key_at or not self._home.key.exists():
            return
        self._key_at, self._key = key_at, load_private(self._home.key)
        self._worker.retire()
        self._go_on_with(self._coordinator)
        _log.warning("the site's key was changed", fingerprint=fingerprint(public_text(self._key)))

    def _look_for_notice(self) -> None:
        """Follow the coordinator where it moved; it is asked now and then, and when it is away."""
        changed_at = _changed_at(self._home.coordinator_json)
        if changed_at != self._coordinator_at:  # `wardround-site move` was typed
            self._coordinator_at = changed_at
            self._go_on_with(load_coordinator(self._home))
        away = self._status.state == "offline"
        pause = _NOTICE_AWAY_SECONDS if away else _NOTICE_SECONDS
        if time.monotonic() < self._noticed_at + pause:
            return
        self._noticed_at = time.monotonic()
        moved = look_for_notice(self._home)
        if moved is not None:
            self._coordinator_at = _changed_at(self._home.coordinator_json)
            self._go_on_with(moved)

    def _go_on_with(self, coordinator: Coordinator) -> None:
        """Take up what has changed of coordinator or key, between turns."""
        if coordinator != self._coordinator:
            _log.warning("the coordinator has moved", to=coordinator.address)
        self._coordinator = coordinator
        self._connection.disconnect()
        self._connection = Reconnecting(self._home, coordinator, self._key)
        self._letters.close()
        self._letters = self._correspondence()
        self._status.write(coordinator=coordinator.address)

    def _turn(self) -> float:
        """Do what can be done now; returns how long to wait before the next turn."""
        if self._way != _way(self._config):  # not in the midst of a turn, which uses the line
            self._connection.disconnect()
            self._way = _way(self._config)
        try:
            fleet = self._connection.fleet(self._config)
            moved = self._letters.turn(fleet, _IDLE_SECONDS)
        except (LinkDown, SiteUnknown) as error:
            self._letters.work()
            return self._down(error)
        self._connection.went_well()
        if moved:
            return 0.0
        return _BUSY_SECONDS if self._letters.open else 0.0

    def _down(self, error: LinkDown | SiteUnknown) -> float:
        """Note that the coordinator is away; returns how long to leave it alone."""
        if self._status.state != "offline" or self._status.message != str(error):
            _log.warning("not connected", why=str(error))
        self._status.offline(str(error))
        if isinstance(error, SiteUnknown):
            self._connection.disconnect()
            if tell_again(self._home):  # a coordinator from before the key's change
                _log.warning("the coordinator was told of this site's changed key again")
        return self._connection.longer_pause()

    def _reload(self) -> None:
        """Take up a changed site.yaml; a wrong one is told of, and the old one stays."""
        withdrawn_at = _changed_at(self._home.withdrawals)
        if withdrawn_at != self._withdrawn_at:  # the worker's memory may hold the patient
            self._withdrawn_at = withdrawn_at
            self._worker.retire()
        changed_at = _changed_at(self._home.site_yaml)
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        try:
            config = known_as(self._home)
        except ConfigurationError as error:
            _log.error("site.yaml is wrong; what was in force stays", why=str(error))
            return
        old, self._config = self._config, config
        if any(getattr(old, n) != getattr(config, n) for n in _OF_WORKER) or (
            old.policy != config.policy
        ):
            self._worker.retire()
        self._worker.idle_seconds = _idle_seconds(config)
        self._letters.admission = self._admission()
        _log.info("site.yaml read again")

    def _correspondence(self) -> MessageLoop:
        home = self._home
        transport = TransportContext(
            name=self._config.name,
            to=self._coordinator.name,
            key=self._key,
            inbox=Inbox(home.inbox),
            outbox=Outbox(home.outbox),
            quarantine=Quarantine(home.quarantine),
            records=SiteRecords(home),
            disclosures=Disclosures(home.disclosures),
            worker=self._worker,
            tell=self._told,
            meters=self._meters,
        )
        letters = MessageLoop(transport, self._admission(), self._reload)
        letters.traffic.told = self._tell_transfer
        return letters

    def _admission(self) -> AdmissionContext:
        return AdmissionContext(
            config=self._config,
            coordinator=self._coordinator.fingerprint,
            paused=self._home.paused,
            approvals=Approvals(self._home.approvals),
        )

    def _tell_transfer(self) -> None:
        """Say in the midst of a long transfer how far it is, in the log once a minute."""
        way, now = self._letters.traffic.way, time.monotonic()
        if not way:
            self._logged_at = now
        elif now - self._logged_at > _LOG_SECONDS:
            self._logged_at = now
            _log.info("under way", transfer=way)
        if now - self._told_at > _TELL_SECONDS:
            self._told_at = now
            self._tell_status()

    def _tell_status(self) -> None:
        traffic = self._letters.traffic
        self._meters.connected(self._home.federation, now=self._status.state != "offline")
        self._meters.paused(self._home.paused.exists())
        facts = {
            "bytes_sent": traffic.sent,
            "bytes_received": traffic.received,
            "transfer": traffic.way,
            "worker": {
                "pid": self._worker.pid,
                "restarts": self._worker.restarts,
                "rests": self._worker.rests,
            },
            "set_aside": self._letters.set_aside(),
        }
        if self._status.state == "offline" and self._connection.failed:
            self._status.write(**facts)
            return
        question = self._letters.doing()
        if question is not None:
            self._status.write(
                state="working",
                run=question.run,
                round=question.round,
                phase=question.kind,
                sentence=f"{question.kind} of run {question.run}, round {question.round}",
                **facts,
            )
        elif self._home.paused.exists():
            self._status.write(
                state="paused", sentence="paused; wardround-site resume ends it", **facts
            )
        else:
            self._status.write(
                state="waiting", sentence="connected, waiting for the coordinator", **facts
            )


def _tell(facts: Mapping[str, object], times: int) -> None:
    more = {"more": times - 1} if times > 1 else {}
    _log.info(str(facts["event"]), **{n: f for n, f in facts.items() if n != "event"}, **more)


def _way(config: SiteConfig) -> tuple[object, ...]:
    """Return what a connection depends on."""
    return (config.proxy, config.tunnel)


def _idle_seconds(config: SiteConfig) -> float:
    minutes = config.worker_idle_minutes
    return math.inf if minutes is None else 60 * minutes


def _changed_at(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)
