"""Verdict for each hospital: what each model gains it over its own.

The shared model, the personalised one, the private one and the one that the hospital would choose
are each held against the hospital's own, on its own test patients. So a shared model that harms a
hospital shows as harm, also where the hospital would not choose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from common.config.run_config import RunConfig
from common.metrics.intervals import (
    Estimate,
    Float,
    bootstrap_weights,
    bootstrapped,
    ratio,
    unknown,
)
from common.tasks import task_of
from common.tasks.task import Scores, owners
from simulations.comparison.arms import Arm, ArmOutcome

#: What a site may end up with; federated_dp and pooled are not its to choose here. The first
#: stands unless a later one is clearly better.
CANDIDATES: tuple[Arm, ...] = ("personalised", "federated", "local")
NAMES: Mapping[Arm, str] = {
    "federated": "the shared model",
    "personalised": "its personalised model",
    "local": "its own model",
}
#: What is held against a hospital's own model.
Compared = Literal["federated", "personalised", "federated_dp", "chosen"]
COMPARED: tuple[Compared, ...] = get_args(Compared)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One hospital, all seeds together."""

    chosen: tuple[tuple[Arm, ...], ...]  # by seed, by fold
    #: Of the task's metric: each model that there is minus the hospital's own, mean over seeds.
    gains: Mapping[Compared, Estimate]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One split of the patients at one hospital, and what each arm gave there."""

    outcomes: Mapping[Arm, ArmOutcome]
    patients: tuple[str, ...]  # pseudonym behind each row of the test scores


def said_of(gain: Estimate) -> str:
    """Return what the interval of a gain says."""
    if np.isnan(gain.value) or np.isnan(gain.low):
        return "cannot be said: too few patients"
    if gain.low > 0:
        return "helped"
    if gain.high < 0:
        return "harmed"
    return "no difference beyond chance"


def choose(outcomes: Mapping[Arm, ArmOutcome], site: str) -> Arm:
    """Return the candidate that the site's own validation patients speak for.

    The first of CANDIDATES that can be measured stands, unless another validates better by more
    than one standard error of their difference by patient: the best of a few means is chance.
    """
    there = [arm for arm in CANDIDATES if arm in outcomes]
    losses = {arm: outcomes[arm].validation[site] for arm in there}
    usable = [arm for arm in there if len(losses[arm]) and bool(losses[arm].isfinite().all())]
    if not usable:
        return there[0]
    first = losses[usable[0]]
    better = [arm for arm in usable[1:] if _is_clear(first - losses[arm])]
    return min(better, key=lambda arm: float(losses[arm].mean()), default=usable[0])


def _is_clear(gain: Tensor) -> bool:
    """Return whether the mean of one gain a patient is more than one standard error above 0."""
    return len(gain) > 1 and float(gain.mean()) > float(gain.std()) / len(gain) ** 0.5


def verdict(config: RunConfig, seeds: Sequence[Sequence[Tested]], site: str) -> Verdict:
    """Hold what a site could have against what it had alone; `seeds` holds each one's folds.

    One paired bootstrap for all seeds: a patient who is drawn is drawn in each seed that tests
    them. The interval is that of the mean over the seeds, for other patients of this hospital
    and the models as they were trained.
    """
    chosen = tuple(tuple(choose(fold.outcomes, site) for fold in folds) for folds in seeds)
    gains: dict[Compared, Estimate] = {}
    for name in COMPARED:
        if name == "chosen":
            gains[name] = _gain(config, seeds, chosen, site)
        elif all(name in fold.outcomes for folds in seeds for fold in folds):
            gains[name] = _gain(config, seeds, [(name,) * len(folds) for folds in seeds], site)
    return Verdict(chosen=chosen, gains=gains)


def _gain(
    config: RunConfig, seeds: Sequence[Sequence[Tested]], arms: Sequence[Sequence[Arm]], site: str
) -> Estimate:
    """Return the mean over seeds of these arms' metric minus that of the site's own models."""
    task, rules = task_of(config.task), config.evaluation
    pairs = [_paired(folds, picked, site) for folds, picked in zip(seeds, arms, strict=True)]
    pairs = [pair for pair in pairs if len(pair.patients)]
    people = sorted({name for pair in pairs for name in pair.patients})
    number = {name: place for place, name in enumerate(people)}
    places = [np.array([number[name] for name in pair.patients]) for pair in pairs]

    def gained(weights: Float) -> Float:
        each = [
            task.draws(pair.ours, weights[:, place], rules)
            - task.draws(pair.alone, weights[:, place], rules)
            for pair, place in zip(pairs, places, strict=True)
        ]
        known = ~np.isnan(each)
        return ratio(np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0))

    if not people:
        return unknown(0, "no patients")
    return bootstrapped(gained, bootstrap_weights(len(people), rules.bootstrap, seed=0))


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One seed's scores of the same patients by two models."""

    ours: Scores
    alone: Scores
    patients: tuple[str, ...]  # of each row


def _paired(folds: Sequence[Tested], arms: Sequence[Arm], site: str) -> _Pair:
    """Return a seed's folds together; nobody where the site could not train alone in each."""
    ours = [fold.outcomes[arm].test[site] for fold, arm in zip(folds, arms, strict=True)]
    alone = [fold.outcomes["local"].test[site] for fold in folds]
    whole = all(len(a.loss) == len(b.loss) for a, b in zip(ours, alone, strict=True))
    return _Pair(
        ours=concatenated(ours),
        alone=concatenated(alone),
        patients=tuple(p for fold in folds for p in fold.patients) if whole else (),
    )


def concatenated(parts: Sequence[Scores]) -> Scores:
    """Return scores of several sites or folds as one; nobody is in two of them."""
    owner, patients = [], 0
    for part in parts:
        owner.append(torch.from_numpy(owners(part)) + patients)
        patients = int(owner[-1].max()) + 1 if len(owner[-1]) else patients
    return Scores(
        prediction=torch.cat([p.prediction for p in parts]),
        target=torch.cat([p.target for p in parts]),
        loss=torch.cat([p.loss for p in parts]),
        owner=torch.cat(owner),
    )
