from __future__ import annotations

import numpy as np
import pytest
import torch

from common.bundle.evidence import (
    CalibrationEvidence,
    calibration_from_json,
    calibration_json,
    calibration_of,
)
from common.config.run_config import Evaluation
from common.metrics.statistics import merge
from common.tasks import Scores
from tests.common.every_task import config_of, made, scored

RULES = Evaluation(smallest_cell=5, bootstrap=50)


def site(patients: int, seed: int, *, shift: float = 0.0, stretch: float = 1.0) -> Scores:
    """Return probabilities whose log-odds are stretch x (the true ones) + shift."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 1.5, patients)
    outcome = (generator.random(patients) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    told = 1 / (1 + np.exp(-(stretch * truth + shift)))
    return Scores(
        prediction=torch.from_numpy(told.astype(np.float32))[:, None],
        target=torch.from_numpy(outcome)[:, None],
        loss=torch.zeros(patients),
    )


def calibrated(*sites: Scores) -> CalibrationEvidence:
    statistics = merge([made("binary").statistics(scores, RULES) for scores in sites])
    (found,) = calibration_of(statistics, config_of("binary"))
    return found


def test_probabilities_that_are_true_lie_on_the_line() -> None:
    found = calibrated(site(3000, 0), site(3000, 1))
    assert found.intercept == pytest.approx(0, abs=0.1)
    assert found.slope == pytest.approx(1, abs=0.1)
    assert sum(part.patients for part in found.bins) == pytest.approx(6000, rel=0.01)
    for part in found.bins:
        assert part.seen == pytest.approx(part.predicted, abs=0.06)


def test_risks_told_too_high_and_too_far_apart_are_seen() -> None:
    assert calibrated(site(4000, 2, shift=1.0)).intercept == pytest.approx(-1, abs=0.15)
    assert calibrated(site(4000, 3, stretch=2.0)).slope == pytest.approx(0.5, abs=0.1)


def test_no_bin_holds_fewer_than_the_smallest_cell() -> None:
    for seed in range(5):
        for part in calibrated(site(23, seed)).bins:
            assert part.patients >= 5


def test_what_has_no_probabilities_of_labels_has_no_calibration() -> None:
    for kind in ("proportional", "outlines"):
        statistics = made(kind).statistics(scored(kind, 40), RULES)
        assert calibration_of(statistics, config_of("multiclass")) == ()
    alone = site(40, 5)
    ill = alone._replace(target=torch.ones_like(alone.target))
    statistics = made("binary").statistics(ill, RULES)
    assert all(np.isnan(one.slope) for one in calibration_of(statistics, config_of("binary")))


def test_a_calibration_is_read_as_it_was_written() -> None:
    found = calibrated(site(200, 6))
    assert calibration_from_json([calibration_json(found)]) == (found,)
