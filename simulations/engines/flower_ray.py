"""Sites on Flower's Ray engine.

Flower's engine owns the thread that it is started on, so it gets one of its own; its ServerApp
only hands its Grid to `RaySites`, which the rounds then use like any other `Sites`. Patients
go into Ray's object store once. Where `RAY_ADDRESS` names a cluster, that is used; its
machines need this package and, for private runs, a common file system for the ledgers.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, Queue
from types import TracebackType
from typing import Self, TypeVar

# Flower reports its use to its makers unless told not to, and reads this when it is imported.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from client.training.local_model import LocalModel, open_local_model
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.messages.flower_records import from_arrays, from_record, to_record
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.platform.errors import ConfigurationError, RunFailed
from simulations.engines.flower_ray_site import FAILED, MEMORY, SITE, client_app
from simulations.engines.workers import refuse_real_noise

#: How long Ray may take to start, and Flower to end.
_START_SECONDS = 180.0
_STOP_SECONDS = 60.0
_BROKEN_SECONDS = 5.0
#: Between two looks for answers.
_POLL_SECONDS = 0.02

Answer = TypeVar("Answer", SiteUpdate, SiteReport)


class RaySites:
    """The `Sites` of a run on Ray actors, one message of Flower's to each site.

    RunFailed when Ray does not start, or a site's work fails there.
    """

    def __init__(
        self, sites: Mapping[str, Site], config: RunConfig, seed: int, workers: int | None
    ) -> None:
        refuse_real_noise(sites)
        self._sites = dict(sorted(sites.items()))
        self._local_model = open_local_model(config, seed)
        self._over = threading.Event()
        self._grids: Queue[Grid] = Queue()
        self._failures: Queue[BaseException] = Queue()
        _start_ray(workers)
        app = client_app(self._sites, config, seed)
        self._thread = threading.Thread(
            target=self._simulate, args=(app,), name="flower-simulation", daemon=True
        )

    @property
    def local_model(self) -> LocalModel:
        """The network of this process, for what is measured after the run."""
        return self._local_model

    def available(self) -> tuple[str, ...]:
        """Return every site's name."""
        return tuple(self._sites)

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield updates as they come; each is in memory once, and the weights travel to each."""
        return self._ask(to_record(request), "train", sites, SiteUpdate)

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield reports as they come."""
        return self._ask(to_record(request), "evaluate", sites, SiteReport)

    def bring_memory(self, run: str, round_number: int) -> None:
        """Keep in this process, too, what the sites kept of a round."""
        ask = RecordDict({MEMORY: ConfigRecord({"run": run, "round": round_number})})
        for name, reply in self._replies(ask, "query", self.available()):
            kept = from_arrays(reply.array_records[MEMORY])
            if kept:
                self._sites[name].memory.keep(run, round_number, kept)

    def __enter__(self) -> Self:
        """Start, and wait until Flower has its nodes."""
        self._thread.start()
        ends = time.monotonic() + _START_SECONDS
        while time.monotonic() < ends and self._thread.is_alive():
            try:
                self._grid = self._grids.get(timeout=0.2)
            except Empty:
                continue
            try:
                self._nodes = self._await_nodes(ends)
            except BaseException:
                self._end(_BROKEN_SECONDS)  # else Flower's threads keep the process
                raise
            return self
        self._over.set()
        message = f"Flower's Ray engine did not start: {self._why()}. Try --engine builtin."
        raise RunFailed(message)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the engine and its processes; what broke is not waited for."""
        self._end(_STOP_SECONDS if error is None else _BROKEN_SECONDS)

    def _end(self, seconds: float) -> None:
        self._over.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            import ray

            ray.shutdown()
            self._thread.join(_BROKEN_SECONDS)

    def _simulate(self, app: ClientApp) -> None:
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower calls it so
            self._grids.put(grid)
            self._over.wait()

        try:
            run_simulation(
                server_app=server,
                client_app=app,
                num_supernodes=len(self._sites),
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
            )
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            self._failures.put(error)

    def _await_nodes(self, ends: float) -> dict[str, int]:
        """Return each site's node; Flower numbers them as it makes them."""
        while time.monotonic() < ends:
            nodes = list(self._grid.get_node_ids())
            if len(nodes) == len(self._sites):
                return self._places(nodes)
            time.sleep(_POLL_SECONDS)
        raise RunFailed("Flower's Ray engine made no nodes. Try --engine builtin.")

    def _places(self, nodes: Sequence[int]) -> dict[str, int]:
        """Ask every node which site it is: only Flower knows its numbers."""
        ask = RecordDict({MEMORY: ConfigRecord({"run": "", "round": 0})})
        found = self._replies(ask, "query", [str(n) for n in nodes], {str(n): n for n in nodes})
        return {str(r.config_records[SITE]["name"]): int(node) for node, r in found}

    def _ask(
        self, record: RecordDict, kind: str, sites: Sequence[str], wanted: type[Answer]
    ) -> Iterator[Answer | Refusal]:
        for _, reply in self._replies(record, kind, sites):
            answer = from_record(reply)
            if isinstance(answer, wanted | Refusal):
                yield answer

    def _replies(
        self,
        record: RecordDict,
        kind: str,
        names: Sequence[str],
        nodes: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[str, RecordDict]]:
        """Send one record to several nodes and yield each one's answer as it comes."""
        places = nodes or self._nodes
        messages = [Message(record, places[name], kind) for name in names]
        waiting = dict(zip(self._grid.push_messages(messages), names, strict=True))
        while waiting:
            for reply in self._grid.pull_messages(list(waiting)):
                name = waiting.pop(reply.metadata.reply_to_message_id)
                yield name, _content(name, reply)
            if waiting and not self._thread.is_alive():
                message = f"Flower's Ray engine ended during the run: {self._why()}."
                raise RunFailed(message)
            time.sleep(_POLL_SECONDS if waiting else 0)

    def _why(self) -> str:
        return str(self._failures.get_nowait()) if not self._failures.empty() else "no reason given"


def _content(site: str, reply: Message) -> RecordDict:
    """Return an answer's content; RunFailed when there is none."""
    if reply.has_error():  # not the site's own words, but Flower's of a process that ended
        message = (
            f"A process of Ray's ended in the middle of a site's work{_of_ray(reply)}. If memory "
            "was short, give fewer --workers; the same command goes on where it stopped, and "
            "--engine builtin needs no Ray."
        )
        raise RunFailed(message)
    failed = reply.content.config_records.get(FAILED)
    if failed is not None:
        message = f"Site {site} failed on Ray: {failed['message']!s}"
        raise RunFailed(message)
    return reply.content


def _of_ray(reply: Message) -> str:
    """Return the kind of Ray's error in brackets; its text is a page long."""
    kind = re.search(r"ray\.exceptions\.(\w+)", reply.error.reason or "")
    return "" if kind is None else f" ({kind.group(1)})"


def _start_ray(workers: int | None) -> None:
    """Start Ray quietly, or join the cluster of RAY_ADDRESS; ConfigurationError without Ray."""
    try:
        import ray
    except ImportError as error:
        message = "--engine ray needs Ray: install the lock simulation.txt (docs/install.md)."
        raise ConfigurationError(message) from error
    if not ray.is_initialized():
        # Else Ray warns that it will one day leave the GPUs of such actors visible.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Its notices, and the tracebacks of what our own error says, are not for our users.
        logging.getLogger("flwr").setLevel(logging.CRITICAL + 1)
        cluster = "RAY_ADDRESS" in os.environ
        ray.init(
            num_cpus=None if cluster else workers,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
