"""Rows of a comparison's scores and their patients."""

from __future__ import annotations

import torch

from client.cohort.site_cohort import SiteCohort
from common.tasks.task import Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison, scores_items, tested_patients


def by_item(found: Comparison) -> bool:
    """Return whether a row of scores is an image and not a patient."""
    return scores_items(found.config)


def owners(found: Comparison, cohort: SiteCohort, seed: int, fold: int) -> list[str]:
    """Return the pseudonym behind each row of `Outcome.test` of a hospital."""
    return list(tested_patients(found.config, cohort, seed, fold))


def rows(scores: Scores, chosen: list[int]) -> Scores:
    """Return some rows of scores."""
    places = torch.tensor(chosen, dtype=torch.int64)
    return Scores(
        prediction=scores.prediction[places], target=scores.target[places], loss=scores.loss[places]
    )


def main_arm(found: Comparison) -> Arm:
    """Return the arm whose predictions are looked at closely: the shared model if there is one."""
    wanted: tuple[Arm, ...] = (
        "federated",
        "federated_dp",
        "pooled",
        "personalised",
        "local",
        "leave_one_out",
    )
    return next(arm for arm in wanted if arm in found.arms)
