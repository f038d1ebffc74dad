"""Prediction sets of classes by split conformal prediction (Vovk et al. 2005)."""

from __future__ import annotations

import numpy as np

from client.inference.calibration.label_questions import Float, class_probabilities
from common.config.run_config import RunConfig


def sets_of(
    thresholds: tuple[tuple[float, ...], ...], prediction: Float, config: RunConfig
) -> list[tuple[tuple[str, ...], ...]]:
    """Return each patient's set for each question, from the network's own probabilities.

    Its own, because a recalibration that saw the calibration patients is no longer exchangeable.
    """
    probabilities = class_probabilities(config, prediction)
    asked = list(zip(config.task.alternatives, probabilities, thresholds, strict=True))
    return [
        tuple(
            tuple(
                name
                for name, chance, most in zip(classes, probability[row], limits, strict=True)
                if 1 - chance <= most
            )
            for classes, probability, limits in asked
        )
        for row in range(len(prediction))
    ]


def threshold(misfit: Float, coverage: float) -> float:
    """Return the largest misfit that stays in the set; inf where there are too few patients.

    Of n + 1 exchangeable patients the last is among the k smallest with chance k / (n + 1).
    """
    place = int(np.ceil((len(misfit) + 1) * coverage - 1e-9))
    return float(np.sort(misfit)[place - 1]) if place <= len(misfit) else float("inf")
