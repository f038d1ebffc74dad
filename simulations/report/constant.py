"""The constant predictor and the noise, held against a comparison's models.

Public: constant_of_arm, constant_lines, constant_metrics.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np
import torch

from client.cohort.split import simulated_key
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelProbabilities,
    SurvivalCurve,
)
from common.data.kept_items import in_memory
from common.metrics.constant_predictor import Constant, constant_of
from common.metrics.names import metric_words
from common.platform.errors import ConfigurationError
from common.privacy.noise_calibration import make_plan
from common.privacy.signal import prospect
from common.tasks import task_of
from common.tasks.prognosis import follow_up
from common.tasks.task import Outlining, Scores
from simulations.comparison.arm_configurations import private
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import concatenated
from simulations.report.pictures import shown

#: A share nearer to 0 or 1 has no logarithm that a loss could use.
_LEAST = 1e-6
_PREVALENCE = "The prevalence of the training patients, for everybody,"
_CURVE = "The Kaplan-Meier curve of the training patients, for everybody,"
_INCIDENCE = "The incidence among the training patients, for everybody,"
_MEAN = "The mean of the training patients, for everybody,"
#: Metrics of how well predictions fit, and what is said for everybody; lower is better.
_FITS = {
    "brier": _PREVALENCE,
    "integrated_brier": _CURVE,
    "ranked_probability": _PREVALENCE,
    "mae": _MEAN,
}


def constant_of_arm(found: Comparison, arm: Arm) -> Constant | None:
    """Return the best constant on the test patients of the first seed."""
    if not found.config.task.outlines:
        return constant_of(task_of(found.config.task).metric)
    scores = found.merged_scores(arm, found.seeds[0])
    values = [value for value in _filled(found, scores) if not math.isnan(value)]
    return Constant(metric="dice", value=max(values, default=0.0))


def _filled(found: Comparison, scores: Scores) -> Iterator[float]:
    """Yield the Dice of an empty outline, and of each structure everywhere."""
    task, whole = task_of(found.config.task), np.ones((1, len(scores.loss)))
    assert isinstance(task, Outlining)  # noqa: S101 - whoever calls asked
    for structure in range(task.outputs if len(scores.loss) else 0):
        same = task.filled(scores, structure)
        yield float(task.draws(same, whole, found.config.evaluation)[0])


def constant_metrics(found: Comparison) -> dict[str, float]:
    """Return every metric of the best constant of the training patients, first seed.

    For labels that is their prevalence; for survival the Kaplan-Meier curve of all hospitals'
    training patients, on the run's intervals; for a number their mean. Empty for outlines.
    """
    task, seed = task_of(found.config.task), found.seeds[0]
    if found.config.task.outlines:
        return {}
    parts = []
    for fold, outcome in enumerate(found.outcomes[found.arms[-1], seed]):
        output = _fitted(found, seed, fold)
        for scores in outcome.test.values():
            same = output.expand(len(scores.loss), -1)
            parts.append(
                scores._replace(
                    prediction=task.predict(same), loss=task.item_loss(same, scores.target)
                )
            )
    return _values(found, concatenated(parts))


def _values(found: Comparison, scores: Scores) -> dict[str, float]:
    """Return every metric's value, without the draws that only intervals need."""
    if not len(scores.loss):
        return {}
    whole = np.ones((1, len(scores.loss)))
    told = task_of(found.config.task).exact(scores, whole, found.config.evaluation)
    return {name: estimate.value for name, estimate in told.items()}


def _fitted(found: Comparison, seed: int, fold: int) -> torch.Tensor:
    """Return the network's output, (1, outputs), that says what the training patients had."""
    form, split = found.config.task.predicts, found.config.cohort.split
    trained = [c.split(split, simulated_key(seed), fold)["train"] for c in found.cohorts]
    target = torch.cat([in_memory(part.target).double() for part in trained])
    each = torch.cat([1.0 / torch.bincount(p.patient)[p.patient].double() for p in trained])
    counted, weight = ~target.isnan(), each[:, None]
    happened, seen = target.nan_to_num() * weight, counted * weight
    if isinstance(form, BoundedNumber):
        mean = happened.sum(0) / seen.sum(0).clamp_min(_LEAST)
        return ((mean - form.center) / form.scale)[None, :]
    if isinstance(form, IncidenceCurves):
        return _cause_hazards(target, each, len(form.causes))
    if isinstance(form, SurvivalCurve):
        happened, seen, _, _ = follow_up(happened)
    share = (happened.sum(0) / seen.sum(0).clamp_min(_LEAST)).clamp(_LEAST, 1 - _LEAST)
    if isinstance(form, LabelProbabilities) and form.ordered:
        return share.flip(0).cumsum(0).flip(0)[1:].clamp(_LEAST, 1 - _LEAST).logit()[None, :]
    exclusive = isinstance(form, LabelProbabilities) and form.exclusive
    return (share.log() if exclusive else share.logit())[None, :]


def _cause_hazards(target: torch.Tensor, each: torch.Tensor, causes: int) -> torch.Tensor:
    """Return logits, (1, causes x intervals), of the hazards that the training patients had."""
    cause_in, at_risk, _, _ = follow_up(target)
    seen = (at_risk * each[:, None]).sum(0).clamp_min(_LEAST)
    shares = [((cause_in == c) * each[:, None]).sum(0) / seen for c in range(1, causes + 1)]
    hazards = torch.stack(shares).clamp_min(_LEAST)
    free = (1 - hazards.sum(0)).clamp_min(_LEAST)
    return (hazards.log() - free.log()).flatten()[None, :]


def _by_fit(found: Comparison) -> Iterator[str]:
    """Yield a line for each arm whose predictions err as much as the constant's."""
    constant, seed = constant_metrics(found), found.seeds[0]
    for name in constant:
        everybody = _INCIDENCE if name.startswith("brier_") else _FITS.get(name)
        if everybody is None:
            continue
        for arm in found.arms:
            value = _values(found, found.merged_scores(arm, seed))[name]
            if value >= constant[name]:
                yield (
                    f"{_named(arm)}: NO BETTER THAN A CONSTANT by {metric_words(name)} (lower is "
                    f"better, first seed): {value:.3f}. "
                    f"{everybody} has {constant[name]:.3f}."
                )


def _named(arm: Arm) -> str:
    name = shown(arm)
    return name[:1].upper() + name[1:]


def constant_lines(found: Comparison, low: dict[Arm, float]) -> list[str]:
    """Return the constant beside each arm that is not better, and what noise leaves to learn.

    `low` is where each arm's interval begins.
    """
    lines = []
    for arm in found.arms:
        constant = constant_of_arm(found, arm)
        known = [v for v in (found.value(arm, s) for s in found.seeds) if not math.isnan(v)]
        if constant is None or not known:
            continue
        words = constant.words(statistics.fmean(known), low.get(arm, math.nan))
        if not words.startswith("A constant"):
            lines.append(f"{_named(arm)}: {words}")
    lines += _by_fit(found)
    if "federated_dp" in found.arms:
        noise = _noise(found)
        lines += [f"{_named('federated_dp')}: {noise}"] if noise else []
    return lines


def _noise(found: Comparison) -> str:
    config = private(found.config)
    privacy = config.privacy
    if privacy == "none":
        return ""
    mechanisms = []
    for cohort in found.cohorts:
        try:
            agreed = privacy.agreed(cohort.name)
        except ConfigurationError:
            continue
        patients = len(cohort.items) if agreed == "declared" else agreed
        divisor = patients * privacy.sampling_rate
        plan = make_plan(privacy, config.training, patients, divisor, simulated=True)
        mechanisms.append(plan.mechanism)
    trained = found.outcomes["federated_dp", found.seeds[0]][0].weights
    values = sum(value.numel() for value in trained.values())
    told = prospect(mechanisms, values)
    return "" if told is None else told.words
