"""The truth about invented patients can be found again from what hospitals see."""

from __future__ import annotations

import numpy as np
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from simulations.synthetic.patients import (
    BASELINE_PER_YEAR,
    DAYS_PER_YEAR,
    FOLLOW_UP_YEARS,
    HAZARD_AGE,
    HAZARD_CRP,
    HAZARD_LESION,
    CaseMix,
    Patient,
    hazard_per_year,
    invent,
)

MIX = CaseMix(prevalence=0.4, normal=0.2, missing=0.15, separation=1.0)


def crowd(count: int, mix: CaseMix = MIX, seed: int = 0) -> list[Patient]:
    """Return many patients of one case mix."""
    rng = np.random.default_rng(seed)
    return [invent(str(number), mix, rng) for number in range(count)]


@pytest.fixture(scope="module")
def many() -> list[Patient]:
    return crowd(12_000)


def test_a_cox_model_finds_the_hazard_ratios_again(many: list[Patient]) -> None:
    risk = np.array([[p.radius / 0.05, (p.age - 60) / 10, np.log1p(p.truth.crp) - 2] for p in many])
    seen = Surv.from_arrays([p.event for p in many], [p.time_days for p in many])
    found = CoxPHSurvivalAnalysis(ties="efron").fit(risk, seen).coef_
    # The standard errors are about 0.025, 0.014 and 0.02.
    assert found == pytest.approx([HAZARD_LESION, HAZARD_AGE, HAZARD_CRP], abs=0.07)


def test_deaths_come_at_the_rate_of_the_stated_hazard(many: list[Patient]) -> None:
    expected = sum(
        hazard_per_year(p.radius, p.age, p.truth.crp) * p.time_days / DAYS_PER_YEAR for p in many
    )
    # A martingale: deaths less the integrated hazard has mean 0 and variance `expected`.
    assert sum(p.event for p in many) == pytest.approx(expected, abs=4 * expected**0.5)


def test_the_hazard_is_the_baseline_for_the_reference_patient() -> None:
    assert hazard_per_year(0, 60, np.expm1(2)) == pytest.approx(BASELINE_PER_YEAR)
    doubled = hazard_per_year(0.05, 60, np.expm1(2)) / BASELINE_PER_YEAR
    assert doubled == pytest.approx(np.exp(HAZARD_LESION))


def test_nobody_is_followed_longer_than_the_study(many: list[Patient]) -> None:
    days = np.array([p.time_days for p in many])
    ended = days == np.ceil(FOLLOW_UP_YEARS * DAYS_PER_YEAR)
    assert days.min() >= 1
    assert days.max() == np.ceil(FOLLOW_UP_YEARS * DAYS_PER_YEAR)
    assert not any(p.event for p, last in zip(many, ended, strict=True) if last)
    assert 0.2 < np.mean([p.event for p in many]) < 0.8


def test_the_case_mix_is_as_asked(many: list[Patient]) -> None:
    findings = [p.finding for p in many]
    assert np.mean([f == "malignant" for f in findings]) == pytest.approx(0.4, abs=0.02)
    assert findings.count("normal") / len(many) == pytest.approx(0.6 * 0.2, abs=0.01)
    assert all((p.finding == "normal") == (p.lesions == ()) for p in many)


def test_laboratory_values_go_missing_as_often_as_asked_and_depend_on_disease(
    many: list[Patient],
) -> None:
    ill = [p for p in many if p.finding == "malignant"]
    well = [p for p in many if p.finding != "malignant"]
    for name, rises in (("crp", True), ("ldh", True), ("haemoglobin", False)):
        assert np.mean([name not in p.measured for p in many]) == pytest.approx(0.15, abs=0.015)
        means = [np.mean([getattr(p.truth, name) for p in group]) for group in (well, ill)]
        assert (means[1] > 1.05 * means[0]) if rises else (means[1] < 0.95 * means[0])
    assert np.mean([p.age for p in ill]) > np.mean([p.age for p in well]) + 4


def test_values_go_missing_at_random(many: list[Patient]) -> None:
    taken = np.mean([p.truth.crp for p in many if "crp" in p.measured])
    missing = np.mean([p.truth.crp for p in many if "crp" not in p.measured])
    assert taken == pytest.approx(missing, rel=0.08)


def oracle(separation: float) -> float:
    """Return how well radius, outline and border tell malignant from benign, as an AUROC."""
    mix = CaseMix(prevalence=0.5, normal=0.0, missing=0.0, separation=separation)
    patients = crowd(1500, mix, seed=1)
    first = [p.lesions[0] for p in patients]
    score = np.array([x.radius / 0.02 + x.irregularity / 0.35 - x.sharpness / 0.2 for x in first])
    ill = np.array([p.finding == "malignant" for p in patients])
    return float(np.mean(score[ill][:, None] > score[~ill][None, :]))


def test_separation_sets_how_hard_the_cohort_is() -> None:
    assert oracle(0.0) == pytest.approx(0.5, abs=0.04)
    assert oracle(0.0) + 0.15 < oracle(0.5) < oracle(1.0) - 0.03
    assert oracle(1.0) < 1.0
