from __future__ import annotations

import math

import pytest

from common.metrics.constant_predictor import beside, constant_of


@pytest.mark.parametrize(
    ("metric", "value", "low", "begins"),
    [
        ("auroc", 0.48, 0.41, "NO BETTER THAN A CONSTANT: AUROC 0.480. A constant predictor has"),
        ("auroc", 0.5, 0.5, "NO BETTER"),
        ("macro_auroc", 0.56, 0.49, "Not shown to be better"),
        ("concordance", 0.61, 0.52, "A constant predictor has C-index 0.500."),
        (
            "dice",
            0.0,
            0.0,
            "NO BETTER THAN A CONSTANT: Dice 0.000. A constant predictor has Dice 0.0",
        ),
        ("dice", 0.004, 0.001, "NO BETTER"),
        ("dice", 0.41, 0.35, "A constant predictor has Dice"),
        (
            "auroc",
            math.nan,
            math.nan,
            "A constant predictor has AUROC 0.500; the model's is not known",
        ),
    ],
)
def test_a_model_is_held_against_one_that_looks_at_nobody(
    metric: str, value: float, low: float, begins: str
) -> None:
    constant = constant_of(metric)
    assert constant is not None
    assert constant.words(value, low).startswith(begins)
    told = {"value": None if math.isnan(value) else value, "low": None if math.isnan(low) else low}
    assert beside({"loss": {"value": 0.3}, metric: told}).startswith(begins)


def test_what_is_no_headline_has_no_constant() -> None:
    assert constant_of("brier") is None
    assert beside({"loss": {"value": 0.3, "low": 0.2}}) == ""
    assert beside({}) == ""
