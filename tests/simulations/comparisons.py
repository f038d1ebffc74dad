"""Comparisons with chosen scores, for tests: two hospitals, two seeds, nothing trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from client.dicom.reasons import Reason, Unusable
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.metrics.intervals import Estimate
from common.models.run_network import initial_weights
from common.tasks import task_of
from common.tasks.prognosis import encode_time
from common.tasks.task import Scores
from server.rounds.run_rounds import RoundRecord
from simulations.comparison.arm_configurations import plain
from simulations.comparison.arms import ARMS, Arm, ArmOutcome
from simulations.comparison.compare import Comparison, verdicts_of

TASKS = {
    "binary": "{kind: diagnosis, target: ill}",
    "multiclass": "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}",
    "ordinal": "{kind: diagnosis, type: ordinal, target: grade, classes: [a, b, c, d]}",
    "multilabel": "{kind: diagnosis, type: multilabel, target: [wet, cold]}",
    "survival": "{kind: prognosis, event: dead, time: t, unit: months, intervals: [6, 12, 24]}",
    "competing": "{kind: prognosis, outcome: competing, event: end, causes: [relapse, death],"
    " time: t, unit: months, intervals: [6, 12, 24]}",
    "fixed_horizon": "{kind: prognosis, outcome: fixed_horizon, event: dead}",
    "number": "{kind: regression, target: ef, range: [0, 100], unit: '%'}",
    "segmentation": "{kind: segmentation, structures: {front: [1], back: [2]}}",
    "volume": "{kind: segmentation}",
}
_SIZES = {"segmentation": "[16, 16]", "volume": "[8, 16, 16]"}
SITES = ("north", "south")
PATIENTS = 40


def run_config(kind: str, *, confounder: str | None = None, extra: str = "") -> RunConfig:
    """Return the configuration of a kind of task."""
    network = "unet" if kind in _SIZES else "small_cnn"
    column = f", confounder: {confounder}" if confounder else ""
    text = f"""
name: try
task: {TASKS[kind]}
cohort: {{images: {{size: {_SIZES.get(kind, "[16, 16]")}}}, split: {{test_fraction: 0.5}}{column}}}
model: {{network: {network}, width: 8}}
training: {{rounds: 3, local_steps: 1, batch_patients: 2}}
evaluation: {{bootstrap: 50}}
privacy: {{unit: patient, epsilon: 3.0, default_patients: 20}}
{extra}
"""
    return parse_config(text)


def comparison(
    config: RunConfig, arms: Sequence[Arm] = ARMS, names: Sequence[str] = SITES
) -> Comparison:
    """Return a comparison whose scores are drawn, better for shared models than for local ones."""
    cohorts = tuple(cohort_of(config, name, place) for place, name in enumerate(names))
    seeds = (0, 1)
    folds = range(config.cohort.split.folds or 1)
    outcomes = {
        (arm, seed): tuple(_outcome(config, cohorts, arm, seed, fold) for fold in folds)
        for arm in arms
        for seed in seeds
    }
    verdicts = verdicts_of(config, cohorts, tuple(arms), outcomes, seeds)
    return Comparison(
        config=config,
        cohorts=cohorts,
        seeds=seeds,
        arms=tuple(arms),
        outcomes=outcomes,
        verdicts=verdicts,
        round_seconds=0.02,
        bare_round_seconds=0.01,
        seconds=3.0,
    )


def with_confounder(found: Comparison, values: Sequence[str]) -> Comparison:
    """Return the comparison with these values of the confounder, the same at every hospital."""
    return replace(
        found, cohorts=tuple(replace(c, confounder=tuple(values)) for c in found.cohorts)
    )


def cohort_of(config: RunConfig, name: str, place: int, patients: int = PATIENTS) -> SiteCohort:
    """Return patients, the first of them with two images."""
    rng = np.random.default_rng(place)
    pseudonyms = tuple(f"{place}P{number:03d}" for number in range(patients))
    owner = torch.tensor([0, *range(patients)])
    images = config.cohort.images
    assert images is not None
    target = _targets(config, rng, images.size, patients)[owner]
    shape = (patients, images.input_channels, *images.size)
    image = torch.from_numpy(rng.random(shape, dtype=np.float32))[owner]
    return SiteCohort(
        name=name,
        items=Patients(
            image=image,
            table=torch.zeros(len(owner), 0),
            target=target,
            patient=owner,
            pseudonyms=pseudonyms,
        ),
        given={},
        confounder=("",) * len(owner),
        unusable=(Unusable(reason=Reason.MISSING_SLICES, what="a series"),) * (place + 1),
        examples={p: image[1 + number] for number, p in enumerate(pseudonyms)},
    )


def _targets(
    config: RunConfig, rng: np.random.Generator, size: tuple[int, ...], patients: int
) -> Tensor:
    labels = task_of(config.task).outputs
    match config.task.kind, config.task:
        case "segmentation", _:
            target = np.zeros((patients, *size), np.uint8)
            middle = tuple(slice(n // 4, n // 2) for n in size)
            target[(slice(None), *middle)] = rng.integers(0, labels, (patients, *[1] * len(size)))
            return torch.from_numpy(target)
        case "prognosis", task if getattr(task, "outcome", "") == "survival":
            edges = np.array([6.0, 12.0, 24.0])
            rows = [
                encode_time(t, e, edges)
                for t, e in zip(
                    rng.exponential(12, patients),
                    rng.integers(0, 2, patients).astype(float),
                    strict=True,
                )
            ]
            return torch.from_numpy(np.stack(rows))
        case "prognosis", task if getattr(task, "outcome", "") == "competing":
            rows = [
                task_of(config.task).encode({"end": cause, "t": f"{time}"})
                for time, cause in zip(
                    rng.exponential(12, patients),
                    rng.choice(["0", "relapse", "death"], patients),
                    strict=True,
                )
            ]
            return torch.from_numpy(np.stack(rows))
        case "regression", _:
            number = rng.uniform(10, 80, (patients, 1))
            return torch.from_numpy(number.astype(np.float32))
        case _:
            return _labels(config, rng, labels, patients)


def _labels(config: RunConfig, rng: np.random.Generator, labels: int, patients: int) -> Tensor:
    if getattr(config.task, "type", "") == "ordinal":
        return torch.eye(4)[torch.from_numpy(rng.integers(0, 4, patients))]
    if labels == 3:
        return torch.eye(3)[torch.from_numpy(rng.integers(0, 3, patients))]
    return torch.from_numpy(rng.integers(0, 2, (patients, labels)).astype(np.float32))


def _outcome(
    config: RunConfig, cohorts: tuple[SiteCohort, ...], arm: Arm, seed: int, fold: int
) -> ArmOutcome:
    generator = torch.Generator().manual_seed(seed)
    test = {c.name: _scores(config, c, arm, generator, (seed, fold)) for c in cohorts}
    shared = arm in {"pooled", "federated", "federated_dp"}
    spent = dict.fromkeys([c.name for c in cohorts], 3.0) if arm == "federated_dp" else {}
    return ArmOutcome(
        test=test,
        validation={
            c.name: torch.full((4,), 0.5 if arm == "local" else 0.4, dtype=torch.float64)
            for c in cohorts
        },
        rounds=_rounds(config, spent, validated=arm != "federated_dp") if shared else (),
        epsilon=spent,
        delta=dict.fromkeys(spent, 0.005),
        weights=initial_weights(plain(config), seed) if shared else {},
        chosen_round=2,
        seconds=0.1,
    )


def _rounds(
    config: RunConfig, spent: dict[str, float], *, validated: bool
) -> tuple[RoundRecord, ...]:
    metric = task_of(config.task).metric
    return tuple(
        RoundRecord(
            round=number,
            updates=SITES,
            epsilon={n: e * number / 3 for n, e in spent.items()},
            score=1 / number if validated else None,
            metrics={metric: Estimate(value=0.5 + number / 10, low=0.4, high=1.0, patients=9)},
        )
        for number in (1, 2, 3)
    )


def _scores(
    config: RunConfig,
    cohort: SiteCohort,
    arm: Arm,
    generator: torch.Generator,
    place: tuple[int, int],
) -> Scores:
    """Return scores of the split's test patients: the truth and noise, more of it for local."""
    test = cohort.split(config.cohort.split, simulated_key(place[0]), place[1])["test"]
    by_item = config.task.kind == "segmentation" or config.evaluation.unit == "image"
    first = torch.searchsorted(test.patient, torch.arange(len(test)))
    target = test.target if by_item else test.target[first]
    task = task_of(config.task)
    noise = 2.0 if arm == "local" else 1.0
    if config.task.kind == "segmentation":
        chance = torch.rand(target.shape, generator=generator)
        wrong = chance < 0.1 * noise
        prediction = torch.where(wrong, torch.zeros_like(target), target)
    elif task.metric == "concordance":
        hazard = noise * torch.randn((len(target), 3), generator=generator)
        prediction = task.predict(hazard - target[:, -2:-1] / 12)
    elif task.metric == "cause_auc":
        hazard = noise * torch.randn((len(target), 2, 3), generator=generator)
        told = hazard - target[:, -2, None, None] / 12
        prediction = task.predict(told.flatten(1))
    elif config.task.kind == "regression":
        prediction = (target + 8 * noise * torch.randn(target.shape, generator=generator)).clamp(
            0, 100
        )
    elif task.metric == "quadratic_kappa":
        score = target.argmax(dim=1) + noise * torch.randn(len(target), generator=generator)
        prediction = task.predict(score[:, None] - torch.tensor([0.5, 1.5, 2.5]))
    else:
        output = 2 * target - 1 + noise * torch.randn(target.shape, generator=generator)
        prediction = task.predict(output)
    return Scores(prediction=prediction, target=target, loss=torch.full((len(target),), 0.5))
