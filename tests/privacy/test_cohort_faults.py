"""Faults that would let a description of a cohort tell of few patients, each put in and noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from client.cohort_statistics import description
from client.cohort_statistics import released_counts as cohort_release
from client.cohort_statistics.account import CohortFacts, StudyAccount
from client.cohort_statistics.description import DescribableCohort, Telling, describe
from client.cohort_statistics.released_counts import CountMembers
from client.dicom.reasons import Reason
from client.privacy.ledger import Ledger, Limit
from client.training.training_site import Guard, Site
from common.messages.wire import SiteStatistics, StatisticsRequest
from common.privacy.noise import ChaChaNoise, SimulatedNoise
from tests.client.cohort_statistics.test_description import data
from tests.client.cohort_statistics.test_description import (
    test_files_that_name_nobody_count_for_nobody_where_counts_are_noised as check_files,
)
from tests.client.cohort_statistics.test_description import (
    test_lines_of_one_patient_move_the_counts_by_one_patient_without_privacy_too as check_lines,
)
from tests.client.cohort_statistics.test_released_counts import (
    test_many_studies_of_few_patients_are_few as check_people,
)
from tests.client.cohort_statistics.test_released_counts import (
    test_noise_is_as_large_as_was_charged as check_size,
)
from tests.client.cohort_statistics.test_released_counts import (
    test_one_patient_moves_the_noised_counts_by_no_more_than_the_sensitivity as check_sensitivity,
)
from tests.client.cohort_statistics.test_released_counts import (
    test_one_small_count_takes_the_next_smallest_with_it as check_complement,
)
from tests.client.cohort_statistics.test_released_counts import (
    test_what_was_found_less_what_is_used_tells_no_small_number as check_totals,
)
from tests.client.dicom_files import config_of
from tests.privacy.made_up import patients_of

__all__ = ["data"]

Patch = pytest.MonkeyPatch
CONFIG = config_of(cohort="{table: {numbers: [{column: age}]}}", network="table")


class Watched(ChaChaNoise):
    """Refuses to be drawn from before anything was charged."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.drawn = 0

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return draws, after a look at the ledger."""
        assert self.ledger.head().charges == 1, "noise was drawn before it was charged"
        self.drawn += 1
        return super().gaussian(shape, standard_deviation)


def check_order(path: Path) -> None:
    """Raise unless the charge is durable before the first draw."""
    ledger = Ledger(path / "ledger.db")
    patients, noise = patients_of((1,) * 12, (0,)), Watched(ledger)
    guard = Guard(
        ledger=ledger, limit=Limit(epsilon=1000.0, delta=1e-5), cohort="patients", noise=noise
    )
    site = Site(name="north", train=patients, validation=patients, test=patients, guard=guard)
    facts = CohortFacts(patients=patients.pseudonyms, parts={"train": patients.pseudonyms})
    request = StatisticsRequest(run="run", round=0, seed=0, config=CONFIG)
    answer = describe(site, DescribableCohort(facts=facts), request, Telling(noise=2.0))
    assert isinstance(answer, SiteStatistics)
    assert answer.spend is not None
    assert noise.drawn > 0


def test_all_checks_are_green_without_a_fault(tmp_path: Path) -> None:
    check_people()
    check_complement()
    check_totals(3)
    check_sensitivity()
    check_order(tmp_path)


def test_studies_counted_where_patients_should_be(monkeypatch: Patch) -> None:
    def by_study(people: Sequence[str], smallest: int) -> float | None:
        return float(len(people)) if not people or len(people) >= smallest else None

    monkeypatch.setattr(cohort_release, "_told", by_study)
    with pytest.raises(AssertionError):
        check_people()


def test_no_complementary_suppression(monkeypatch: Patch) -> None:
    def alone(members: CountMembers, smallest: int) -> dict[str, float | None]:
        told: Callable[[Sequence[str], int], float | None] = cohort_release._told
        return {row: told(people, smallest) for row, people in members.rows.items()}

    monkeypatch.setattr(cohort_release, "_rows", alone)
    with pytest.raises(AssertionError):
        check_complement()
    monkeypatch.setattr(cohort_release, "_totals", alone)
    with pytest.raises(AssertionError):
        check_totals(3)


def test_a_patient_in_several_rows_of_a_noised_table(monkeypatch: Patch) -> None:
    monkeypatch.setattr(CountMembers, "by_patient", lambda self: self)
    with pytest.raises(AssertionError):
        check_sensitivity()


@pytest.mark.parametrize("kind", ["outcome", "no key"])
def test_lines_counted_where_patients_should_be(
    monkeypatch: Patch, tmp_path: Path, kind: str
) -> None:
    def by_line(facts: CohortFacts, *, lines: bool) -> dict[str, Reason]:
        del lines
        return {problem.what: problem.reason for problem in facts.unusable}

    monkeypatch.setattr(description, "_without_images", by_line)
    with pytest.raises(AssertionError):
        check_lines(tmp_path, kind)


def test_folders_counted_as_patients(monkeypatch: Patch, tmp_path: Path, data: Path) -> None:
    monkeypatch.setattr(StudyAccount, "named", property(lambda _self: True, lambda *_: None))
    with pytest.raises(AssertionError):
        check_files(data, tmp_path)


def test_noise_without_a_charge_or_before_it(monkeypatch: Patch, tmp_path: Path) -> None:
    def first(site, _request, tables, smallest, spread):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return cohort_release.noised(tables, smallest, spread, site.guard.noise), None

    monkeypatch.setattr(description, "_noised", first)
    with pytest.raises(AssertionError, match="before it was charged"):
        check_order(tmp_path)


def test_noise_of_another_size_than_was_charged(monkeypatch: Patch) -> None:
    check_size()
    real = SimulatedNoise.gaussian
    monkeypatch.setattr(
        SimulatedNoise, "gaussian", lambda self, shape, spread: real(self, shape, spread / 2)
    )
    with pytest.raises(AssertionError):
        check_size()
