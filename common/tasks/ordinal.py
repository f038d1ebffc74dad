"""Diagnosis of a grade: classes that have an order, by one score and ordered thresholds.

A cumulative link (McCullagh 1980) learned as CORAL learns it (Cao, Mirjalili and Raschka 2020,
eqs. 3 and 4): one answer of the network and a threshold for each grade but the highest, cross-
entropy of lying above each. Thresholds are a first one and gaps that cannot be below 0, so that
the probabilities fall from cut to cut whatever the weights are: at the start, after noise, and
where sites' weights are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.run_config import DiagnosisTask, Evaluation
from common.metrics.decisions import grades
from common.metrics.decisions.confusion import quadratic_kappa, weighed
from common.metrics.decisions.grades import Graded
from common.metrics.intervals import Estimate, bootstrapped, weighted_mean
from common.metrics.statistics import Statistics
from common.tasks.diagnosis import Diagnosis
from common.tasks.task import Scores, at_least_float32, loss_estimate, loss_sums, owners, whole


class CumulativeLink(nn.Module):
    """A network's one score, held against a threshold below each grade but the lowest."""

    def __init__(self, network: nn.Module, grades: int) -> None:
        super().__init__()
        self.network = network
        # At the start all grades are as probable.
        even = torch.logit(1 - torch.arange(1, grades, dtype=torch.float64) / grades)
        gaps = -even.diff()
        self.baseline = nn.Parameter(even[:1].float())
        self.gaps = nn.Parameter((gaps + torch.log(-torch.expm1(-gaps))).float())

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return logits of lying above each cut, (items, grades - 1), falling."""
        score: Tensor = self.network(image, table)
        below = F.pad(F.softplus(self.gaps).cumsum(0), (1, 0))
        return self.baseline - below + score


@dataclass(frozen=True, kw_only=True)
class Grades:
    """Targets are (grades,) of 0 and one 1, as those of a diagnosis of several classes."""

    config: DiagnosisTask

    @property
    def labels(self) -> Diagnosis:
        """The diagnosis of the same classes, without their order."""
        return Diagnosis(config=self.config)

    @property
    def outputs(self) -> int:
        """One score."""
        return 1

    @property
    def logits(self) -> int:
        """One a cut."""
        return len(self.config.classes) - 1

    def completed(self, network: nn.Module) -> nn.Module:
        """Return the network with its thresholds."""
        return CumulativeLink(network, len(self.config.classes))

    @property
    def metric(self) -> str:
        """Kappa with quadratic weights."""
        return "quadratic_kappa"

    def columns(self) -> tuple[str, ...]:
        """Return the target column."""
        return self.labels.columns()

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return (grades,) with a 1 at the row's grade."""
        return self.labels.encode(row)

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the grade."""
        return self.labels.outcome_rows(target)

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody of the lowest grade."""
        return self.labels.blank_target(size)

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the sum over cuts of the cross-entropy of lying above, by item."""
        output = at_least_float32(output)
        above = target.flip(1).cumsum(1).flip(1)[:, 1:].to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, above, reduction="none").sum(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of each grade, (items, grades).

        A site's calibration moves each cut by itself; where it crosses two, the lower holds.
        """
        above = _falling(at_least_float32(output)).sigmoid()
        ends = F.pad(F.pad(above, (1, 0), value=1.0), (0, 1))
        return ends[:, :-1] - ends[:, 1:]

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return matrices of true and predicted grades, and ranges of the score by grade."""
        held = _graded(scores)
        if rules.count_noise > 0:
            return grades.noisable(held)
        cells, sums = grades.released(held, rules.smallest_cell)
        return Statistics(
            patients=whole(scores, rules), cells=cells, sums=sums | loss_sums(scores, rules)
        )

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return kappa, errors in grades and AUROC by cut of merged counts."""
        if rules.count_noise > 0:
            return grades.of_noised(statistics, self.config.classes)
        found = grades.of_released(statistics, self.config.classes)
        return found | {"loss": loss_estimate(statistics)}

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        del rules
        loss = scores.loss.double().numpy()
        return grades.exact(_graded(scores), weights, self.config.classes) | {
            "loss": bootstrapped(lambda drawn: weighted_mean(loss, drawn), weights)
        }

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return kappa of each bootstrap draw."""
        del rules
        held = _graded(scores)
        return quadratic_kappa(weighed(held.decisions, held.grades, weights))


def _graded(scores: Scores) -> Graded:
    return Graded(
        truth=scores.target.argmax(dim=1).double().numpy(),
        probability=scores.prediction.double().numpy(),
        owner=owners(scores),
    )


def _falling(cuts: Tensor) -> Tensor:
    """Return (items, cuts) with none above the one before: cummin, which ONNX does not know."""
    held = [cuts[:, :1]]
    for cut in torch.split(cuts[:, 1:], 1, dim=1):
        held.append(torch.minimum(held[-1], cut))
    return torch.cat(held, dim=1)
