"""The service of `wardround-coordinator start`.

SIGTERM, SIGINT   stop runs in time, then the listeners
SIGHUP            show the certificate in the folder anew, read stop_seconds and runs_at_once again
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

from prometheus_client import CollectorRegistry

from common.platform.errors import ConfigurationError, WardroundError
from common.platform.file_lock import FileLock, Taken
from common.platform.freed_memory import give_freed_memory_back, sort_out_what_stays
from common.platform.health import open_health
from common.platform.logs import log, open_logs
from server.enrolment.moving import renew
from server.files.coordinator_yaml import Settings, load_settings
from server.files.folder import Folder
from server.service.gateway import Gateway
from server.service.operator_api import OperatorApi
from server.service.prometheus_metrics import CoordinatorMeters
from server.service.run_metrics import Follower
from server.service.supervision import RUN_COMMAND, Supervisor
from server.service.systemd import OPEN_FILES

_LOOK_SECONDS = 1.0
_RENEWAL_SECONDS = 6 * 3600.0


def run_service(
    folder: Folder,
    *,
    json: bool,
    announce: Callable[[Settings], None],
    command: Sequence[str] = RUN_COMMAND,
) -> None:
    """Serve until a signal says to stop; `announce` is called once both listeners answer."""
    give_freed_memory_back()
    _allow_open_files()
    folder.require()
    settings = load_settings(folder.settings)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder.lock))
        except Taken as error:
            message = f"The coordinator in {folder.path} runs already: wardround-coordinator status"
            raise ConfigurationError(message) from error
        stack.enter_context(open_logs(folder.log, json=json, name="service"))
        _renew(folder, settings)
        service = _Service(folder, settings, command)
        sort_out_what_stays()
        health = stack.enter_context(
            open_health(settings.health_port, settings.health_grpc_port, service.registry)
        )

        def started() -> None:
            health.set("ok")
            announce(settings)

        asyncio.run(service.run(started))


class _Service:
    def __init__(self, folder: Folder, settings: Settings, command: Sequence[str]) -> None:
        self._folder = folder
        self._settings = settings
        self.registry = CollectorRegistry()
        self._gateway = Gateway(folder, settings)
        self._gateway.superlink.stop_all_runs()
        self._supervisor = Supervisor(
            folder,
            self._gateway.superlink,
            stop_seconds=settings.stop_seconds,
            runs_at_once=settings.runs_at_once,
            command=command,
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until a signal says to stop, then stop everything in order."""
        stopping = self._listen_to_signals()
        self._supervisor.go_on()
        api = OperatorApi(self._folder, self._gateway, self._supervisor, self.registry)
        serving = asyncio.ensure_future(self._gateway.serve(api.app()))
        chores = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._keep_valid())]
        try:
            if await _before(self._gateway.started(), serving):
                log(__name__).info("listening", sites=self._settings.listen, pid=os.getpid())
                started()
                await _before(stopping.wait(), serving)
            log(__name__).info("stopping")
        finally:
            for chore in chores:
                chore.cancel()
            # Runs first: they need the listeners to say goodbye.
            await self._supervisor.close()
            self._gateway.stop()
            await serving

    def _listen_to_signals(self) -> asyncio.Event:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        return stopping

    def _reload(self) -> None:
        """Take what can change without a restart; say what cannot."""
        try:
            settings = load_settings(self._folder.settings)
            _renew(self._folder, settings)
            self._gateway.renew()
        except (WardroundError, OSError) as error:
            log(__name__).error("cannot reload; everything stays as it was", reason=str(error))
            return
        self._supervisor.stop_seconds = settings.stop_seconds
        self._supervisor.queue.at_once = settings.runs_at_once
        taken = {"stop_seconds": settings.stop_seconds, "runs_at_once": settings.runs_at_once}
        fixed = self._settings.model_copy(update=taken)
        if settings != fixed:
            log(__name__).warning("other changes in coordinator.yaml need a restart")
        log(__name__).info("reloaded")

    async def _watch(self) -> None:
        """Keep the meters in step with what sites and runs do."""
        meters = CoordinatorMeters(self.registry)
        follower = await asyncio.to_thread(Follower, self._folder, meters)

        def look() -> None:
            accepted = [s.name for s in self._gateway.enrolment.sites() if s.state == "accepted"]
            meters.sites(accepted, self._gateway.superlink.online())
            follower.look()

        while True:
            try:
                await asyncio.to_thread(look)
            except (WardroundError, OSError) as error:
                log(__name__).warning("cannot look at the runs", reason=str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _keep_valid(self) -> None:
        """Renew the server's certificate before it ends, however long the service runs."""
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            try:
                if await asyncio.to_thread(_renew, self._folder, self._settings):
                    self._gateway.renew()
            except (WardroundError, OSError) as error:
                log(__name__).error("cannot renew the certificate", reason=str(error))


async def _before(wanted: Coroutine[Any, Any, object], serving: asyncio.Future[None]) -> bool:
    """Return whether what is wanted happened while the listeners still serve."""
    waiting = asyncio.ensure_future(wanted)
    either: list[asyncio.Future[Any]] = [waiting, serving]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return not serving.done()


def _allow_open_files() -> None:
    """Take as many open files as the system allows, within reason; many have a limit of 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _renew(folder: Folder, settings: Settings) -> bool:
    renewed = renew(folder, settings)
    for what in renewed:
        log(__name__).warning("certificate renewed", of=what, address=settings.address)
    return bool(renewed)
