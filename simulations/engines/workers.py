"""Sites on forked processes of this machine.

The workers are forked when the cohorts are in memory, so images are shared and copied by
nobody. Weights and updates lie in memory that all of them see; only small facts go through
pipes. A site's memory, ledger and noise are its worker's alone from then on. Results are
those of `InProcessSites` on one thread, to the last bit.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch

from client.training.evaluation import evaluate_round
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.platform.errors import ConfigurationError, RunFailed, WardroundError
from simulations.engines.shared_memory import fill, shared_like

_STOP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a worker is asked to do with some of its sites; tensors are in shared memory."""

    kind: Literal["train", "validation", "test", "memory"]
    sites: tuple[str, ...]
    run: str
    round: int
    seed: int
    controlled: bool  # SCAFFOLD's control variate was sent


_Memory = dict[str, np.ndarray]
_Answer = SiteUpdate | SiteReport | Refusal | WardroundError | _Memory


class WorkerSites:
    """The `Sites` of server/rounds/run_rounds.py on several processes.

    A yielded update is a view of shared memory: it holds until the next request. Where a
    worker dies the run ends with RunFailed that names it. Workers end with this process.
    """

    def __init__(
        self, sites: Mapping[str, Site], config: RunConfig, seed: int, workers: int
    ) -> None:
        if workers < 1:
            message = f"workers={workers}, expected at least 1."
            raise ConfigurationError(message)
        refuse_real_noise(sites)
        self._sites = dict(sorted(sites.items()))
        self._config = config
        self._local_model = open_local_model(config, seed)
        own = self._local_model.local
        shared = {n: v for n, v in self._local_model.trained.items() if n not in own}
        self._weights, self._control = shared_like(shared), shared_like(shared)
        self._deltas = {name: shared_like(shared) for name in self._sites}
        self._changes = {name: shared_like(shared) for name in self._sites}
        count = min(workers, len(self._sites))
        self._place = {name: i % count for i, name in enumerate(self._sites)}
        self._pipes: list[Connection] = []
        self._processes: list[ForkProcess] = []
        #: Answers that a worker still owes, when a caller did not take them all.
        self._owed = [0] * count
        for number in range(count):
            self._fork(number)

    @property
    def local_model(self) -> LocalModel:
        """The parent's own network, for what is measured after the run."""
        return self._local_model

    def available(self) -> tuple[str, ...]:
        """Return every site's name."""
        return tuple(self._sites)

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield the sites' updates in order; the workers are at the next ones meanwhile."""
        for answer in self._ask("train", request, sites):
            if isinstance(answer, SiteUpdate):
                change = self._changes[answer.site] if request.control is not None else None
                yield replace(answer, delta=self._deltas[answer.site], control_delta=change)
            elif isinstance(answer, Refusal):
                yield answer

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield the sites' reports in order."""
        for answer in self._ask(request.split, request, sites):
            if isinstance(answer, SiteReport | Refusal):
                yield answer

    def bring_memory(self, run: str, round_number: int) -> None:
        """Keep in this process, too, what the sites kept of a round."""
        for name, site in self._sites.items():
            job = _Job(
                kind="memory", sites=(name,), run=run, round=round_number, seed=0, controlled=False
            )
            self._send(self._place[name], job)
            kept = self._receive(self._place[name])
            if isinstance(kept, dict) and kept:
                found = {n: torch.from_numpy(v) for n, v in kept.items()}
                site.memory.keep(run, round_number, found)

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            pipe.close()  # a worker that waits ends by this
        for process in self._processes:
            process.join(0.2)
            if process.is_alive():
                process.terminate()
                process.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self,
        kind: Literal["train", "validation", "test"],
        request: TrainRequest | EvaluationRequest,
        sites: Sequence[str],
    ) -> Iterator[_Answer]:
        """Put the weights where all see them, set the workers to work, yield in order."""
        self._settle()
        if request.config is not self._config and request.config != self._config:
            message = (
                f"Run {request.run} asks with another configuration than these workers were "
                "forked with. Make new workers for it."
            )
            raise ConfigurationError(message)
        control = request.control if isinstance(request, TrainRequest) else None
        fill(self._weights, request.weights)
        fill(self._control, control or {})
        for worker in range(len(self._processes)):
            own = tuple(name for name in sites if self._place[name] == worker)
            if own:
                self._send(
                    worker,
                    _Job(
                        kind=kind,
                        sites=own,
                        run=request.run,
                        round=request.round,
                        seed=request.seed,
                        controlled=control is not None,
                    ),
                )
        for name in sites:
            yield self._receive(self._place[name])

    def _settle(self) -> None:
        """Take answers that nobody waited for, so that no worker writes what is read next."""
        for worker, owed in enumerate(self._owed):
            for _ in range(owed):
                self._receive(worker, heed_errors=False)

    def _send(self, worker: int, job: _Job) -> None:
        try:
            self._pipes[worker].send(job)
        except OSError as error:
            raise self._dead(worker) from error
        self._owed[worker] += len(job.sites)

    def _receive(self, worker: int, *, heed_errors: bool = True) -> _Answer:
        try:
            answer: _Answer = self._pipes[worker].recv()
        except (EOFError, OSError) as error:
            raise self._dead(worker) from error
        self._owed[worker] -= 1
        if isinstance(answer, WardroundError) and heed_errors:
            raise answer
        return answer

    def _dead(self, worker: int) -> RunFailed:
        process = self._processes[worker]
        process.join(_STOP_SECONDS)
        self._owed[worker] = 0
        own = ", ".join(name for name, place in self._place.items() if place == worker)
        return RunFailed(
            f"Worker {worker} (process {process.pid}, sites {own}) ended with exit code "
            f"{process.exitcode}, expected an answer. If memory ran out (exit code -9), use fewer "
            "--workers; otherwise its own message is above."
        )

    def _fork(self, number: int) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self._pipes.append(ours)
        process = context.Process(
            target=self._work, args=(theirs,), name=f"wardround-worker-{number}", daemon=True
        )
        process.start()
        theirs.close()
        self._processes.append(process)

    # --- in the worker -------------------------------------------------------------------

    def _work(self, pipe: Connection) -> None:
        """Answer until the other end is closed."""
        # The parent decides what an interruption means; threads of several workers would
        # only be in each other's way.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        for inherited in self._pipes:
            inherited.close()  # else no worker would see the parent's end
        try:
            while True:
                job: _Job = pipe.recv()
                for name in job.sites:
                    pipe.send(self._answer(job, self._sites[name]))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return

    def _answer(self, job: _Job, site: Site) -> _Answer:
        try:
            match job.kind:
                case "train":
                    return self._train(job, site)
                case "memory":
                    kept = site.memory.recall(job.run, job.round)
                    return {n: v.numpy() for n, v in kept.items()}
                case "validation" | "test":
                    request = EvaluationRequest(
                        run=job.run,
                        round=job.round,
                        seed=job.seed,
                        config=self._config,
                        weights=self._weights,
                        split=job.kind,
                    )
                    return evaluate_round(site, self._local_model, request)
        except WardroundError as error:
            return error

    def _train(self, job: _Job, site: Site) -> SiteUpdate | Refusal:
        request = TrainRequest(
            run=job.run,
            round=job.round,
            seed=job.seed,
            config=self._config,
            weights=self._weights,
            control=self._control if job.controlled else None,
        )
        update = train_round(site, self._local_model, request)
        if isinstance(update, Refusal):
            return update
        fill(self._deltas[site.name], update.delta)
        fill(self._changes[site.name], update.control_delta or {})
        return replace(update, delta={}, control_delta=None)


def refuse_real_noise(sites: Mapping[str, Site]) -> None:
    """Refuse what must not be in several processes: ConfigurationError names the site."""
    for site in sites.values():
        if site.guard is not None and not site.guard.noise.simulated:
            # Two copies of one noise source draw the same noise, which then is none.
            message = (
                f"Site {site.name} has the noise of a real run, which must never be in two "
                "processes. Workers are for simulations; use simulated noise."
            )
            raise ConfigurationError(message)
