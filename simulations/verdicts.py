"""Did it help *me*? For each hospital: what it would choose, and what that gained on its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.config import RunConfig
from common.tasks import task_of
from common.tasks.task import Scores, owners, patient_weights
from simulations.arms import Arm, Outcome

#: What a site may end up with; federated_dp and pooled are not its to choose here.
CANDIDATES: tuple[Arm, ...] = ("federated", "personalised", "local")
NAMES: Mapping[Arm, str] = {
    "federated": "the shared model", "personalised": "its personalised model",
    "local": "its own model",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One hospital on one seed."""

    chosen: tuple[Arm, ...]  # by fold: the candidate with the smallest own validation loss
    difference: float  # of the task's metric: chosen minus local-only, own test patients
    low: float  # 95 % bootstrap interval of the difference
    high: float

    @property
    def summary(self) -> str:
        """What the interval says."""
        if np.isnan(self.difference):
            return "cannot be said: too few patients"
        if self.low > 0:
            return "helped"
        if self.high < 0:
            return "harmed"
        return "no difference beyond chance"


def choose(folds: Sequence[Mapping[Arm, Outcome]], site: str) -> tuple[Arm, ...]:
    """Return, for each fold, the candidate that the site's own validation patients prefer."""

    def loss(outcomes: Mapping[Arm, Outcome], arm: Arm) -> float:
        value = outcomes[arm].validation_loss[site]
        return np.inf if np.isnan(value) else value

    return tuple(
        min((arm for arm in CANDIDATES if arm in outcomes), key=lambda arm: loss(outcomes, arm))
        for outcomes in folds
    )


def verdict(
    config: RunConfig, folds: Sequence[Mapping[Arm, Outcome]], site: str, seed: int
) -> Verdict:
    """Compare what the site would choose with what it had alone, on the same test patients."""
    chosen = choose(folds, site)
    ours = concatenated([f[arm].test[site] for f, arm in zip(folds, chosen, strict=True)])
    alone = concatenated([f["local"].test[site] for f in folds])
    task, rules = task_of(config.task), config.evaluation
    # No test patients, or too few patients to train alone in some fold.
    if len(ours.loss) == 0 or len(alone.loss) != len(ours.loss):
        return Verdict(chosen=chosen, difference=np.nan, low=np.nan, high=np.nan)
    patients = len(ours.loss)
    weights = patient_weights(ours, rules.bootstrap, seed)
    whole = np.ones((1, patients))

    def gain(drawn: np.ndarray) -> np.ndarray:
        found: np.ndarray = task.draws(ours, drawn, rules) - task.draws(alone, drawn, rules)
        return found

    draws = gain(weights)
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Verdict(
        chosen=chosen, difference=float(gain(whole)[0]), low=float(low), high=float(high)
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
