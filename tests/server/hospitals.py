"""Honest stand-ins for hospitals: each fits a line to its own numbers, nothing is mocked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from client.training.kept_between_rounds import MemoryInFolder, MemoryInProcess, SiteMemory
from common.algorithms.scaffold import next_control
from common.config.run_config import RunConfig, parse_config
from common.data.weights import Weights, zeros_like
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.tasks import task_of
from common.tasks.task import Scores
from server.aggregation.rules import Aggregator, aggregator_of
from server.rounds.run_state import RunState

NAMES = ("east", "north", "south", "west")
RATE, STEPS = 0.5, 3


def config_of(more: str = "", *, rounds: int = 4, training: str = "") -> RunConfig:
    """Return a run of a linear model on two clinical numbers."""
    return parse_config(f"""
name: line
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{{column: age}}, {{column: crp}}]}}}}
model: {{network: table}}
training: {{rounds: {rounds}, optimizer: sgd{training}}}
privacy: none
{more}
""")


class Hospital:
    """Sixty made-up patients of one site and a logistic regression of four numbers."""

    def __init__(self, name: str, seed: int, memory: SiteMemory) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.name = name
        self.inputs = torch.randn(60, 4, generator=draw)
        truth = self.inputs @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 0.1 * seed
        self.target = (truth + torch.randn(60, generator=draw) > 0).float()[:, None]
        self.memory = memory  # of SCAFFOLD's c_i

    def train(self, request: TrainRequest) -> SiteUpdate:
        """Take a few steps of gradient descent on all patients."""
        own = self.memory.recall(request.run, request.round - 1) or zeros_like(request.weights)
        values = {n: v.clone().requires_grad_() for n, v in request.weights.items()}
        for _ in range(STEPS):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                self.logits(values), self.target
            )
            gradients = torch.autograd.grad(loss, list(values.values()))
            with torch.no_grad():
                for (name, value), gradient in zip(values.items(), gradients, strict=True):
                    pull = request.control[name] - own[name] if request.control else 0.0
                    value.sub_(RATE * (gradient + pull))
        delta = {n: v.detach() - request.weights[n] for n, v in values.items()}
        change = None
        if request.control is not None:
            after = next_control(own, request.control, delta, STEPS * RATE)
            change = {n: after[n] - own[n] for n in own}
            self.memory.keep(request.run, request.round, after)
        return SiteUpdate(
            run=request.run,
            round=request.round,
            site=self.name,
            delta=delta,
            control_delta=change,
            steps=STEPS,
        )

    def evaluate(self, request: EvaluationRequest) -> SiteReport:
        """Count the predictions as any site does."""
        task = task_of(request.config.task)
        output = self.logits(request.weights)
        scores = Scores(
            prediction=task.predict(output),
            target=self.target,
            loss=task.item_loss(output, self.target),
        )
        return SiteReport(
            run=request.run,
            round=request.round,
            site=self.name,
            statistics=task.statistics(scores, request.config.evaluation),
        )

    def logits(self, weights: Weights) -> torch.Tensor:
        """Return (patients, 1)."""
        return self.inputs @ weights["weight"].T + weights["bias"]


class FakeSites:
    """Hospitals in this process; answers come in the order that `arrival` makes of the sites."""

    def __init__(self, folder: Path | None = None) -> None:
        self.order = list(NAMES)
        self.hospitals = {
            name: Hospital(
                name, seed, MemoryInFolder(folder / name) if folder else MemoryInProcess()
            )
            for seed, name in enumerate(NAMES)
        }

    def available(self) -> tuple[str, ...]:
        """Return every hospital, in no particular order."""
        return tuple(reversed(self.hospitals))

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield updates in the order of arrival."""
        for name in self.order:
            if name in sites:
                sys.audit("wardround.train", name)  # a place to be killed at
                yield self.hospitals[name].train(request)

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield reports in the order of arrival."""
        for name in self.order:
            if name in sites:
                sys.audit("wardround.evaluate", name)
                yield self.hospitals[name].evaluate(request)


def start(config: RunConfig, sites: int = 4) -> tuple[Aggregator, RunState]:
    """Return the aggregator and a first state with four weights and a constant."""
    aggregator = aggregator_of(config.aggregation, sites)
    weights = {"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}
    state = RunState(
        run="r1",
        round=0,
        seed=0,
        fingerprint=config.fingerprint(),
        weights=weights,
        server=aggregator.init(weights),
        average={},
        best={},
    )
    return aggregator, state


def random_update(site: str, seed: int, request: TrainRequest) -> SiteUpdate:
    """Return an update of random values that fits the request."""
    draw = torch.Generator().manual_seed(seed)
    delta = {n: torch.randn(v.shape, generator=draw) for n, v in request.weights.items()}
    return SiteUpdate(run=request.run, round=request.round, site=site, delta=delta, steps=1)


def same_bits(left: Weights, right: Weights) -> bool:
    """Return whether two sets of tensors are equal to the last bit."""
    return left.keys() == right.keys() and all(
        np.array_equal(left[n].numpy(), right[n].numpy()) for n in left
    )
