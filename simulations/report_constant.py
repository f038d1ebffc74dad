"""What a comparison's models are held against: a predictor that looks at nobody, and the noise.

Public: constant_of_arm, constant_lines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np
import torch

from common.constant_predictor import Constant, constant_of
from common.errors import ConfigurationError
from common.network import initial_weights
from common.privacy.accounting import make_plan
from common.privacy.signal import prospect
from common.tasks import task_of
from common.tasks.task import Scores
from simulations.arm_configurations import private
from simulations.arms import Arm
from simulations.compare import Comparison


def constant_of_arm(found: Comparison, arm: Arm) -> Constant | None:
    """Return the best constant on the test patients of the first seed."""
    if found.config.task.kind != "segmentation":
        return constant_of(task_of(found.config.task).metric)
    scores = found.merged_scores(arm, found.seeds[0])
    values = [value for value in _filled(found, scores) if not math.isnan(value)]
    return Constant(metric="dice", value=max(values, default=0.0))


def _filled(found: Comparison, scores: Scores) -> Iterator[float]:
    """Yield the Dice of an empty outline, and of each structure everywhere."""
    task, whole = task_of(found.config.task), np.ones((1, len(scores.loss)))
    for structure in range(task.outputs if len(scores.loss) else 0):
        same = scores._replace(prediction=torch.full_like(scores.prediction, structure))
        yield float(task.draws(same, whole, found.config.evaluation)[0])


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
            lines.append(f"{arm}: {words}")
    if "federated_dp" in found.arms:
        noise = _noise(found)
        lines += [f"federated_dp: {noise}"] if noise else []
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
    values = sum(value.numel() for value in initial_weights(config, 0).values())
    told = prospect(mechanisms, values)
    return "" if told is None else told.words
