"""Faults by which one patient's files decide over another's, put in and noticed; and an audit.

The audit is a game: of two hospitals that differ by one patient, that is guessed which a noised sum
came from. How often the guess is right says which epsilon the release has at least.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import NormalDist

import pytest
import torch

from client.cohort import image_masks, prepare
from client.cohort import loading as cohort
from client.cohort.left_out import ColumnsUnusable
from client.cohort.select import Grouping, WantedImages
from client.cohort.site_cohort import SiteCohort
from client.cohort.split import Part, SplitKey
from client.cohort_statistics import account as cohort_account
from client.dicom.reasons import Unusable
from client.labels import csv_text as table_csv
from client.labels import label_table as labels
from client.labels import spreadsheet
from client.labels.label_table import read_labels
from client.labels.table_files import TextTable, read_table
from client.privacy import patient_sampling
from client.privacy.patient_gradients import DrawnPatients
from client.site.quality_section import QualityRules
from common.config.run_config import Split
from common.data.sample import Patients
from common.platform.errors import CohortError
from common.privacy.accounting import epsilon_of
from common.privacy.noise import ChaChaNoise, NoiseSource
from common.privacy.noise_calibration import calibrate
from tests.privacy import two_worlds
from tests.privacy.made_up import Silence, mechanism_of, patients_of, without
from tests.privacy.two_worlds import Patient, Table, Way, World, check, world, write

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Patch = pytest.MonkeyPatch
RUN, MANY = "1 label", 12


def worlds(
    folder: Path,
    *ways: Way,
    patients: int = MANY,
    name: str = "AAA",
    seed: int = 0,
    run: str = RUN,
    table: Table = "csv",
) -> tuple[World, World]:
    """Return two hospitals that differ by one patient who is hostile in these ways."""
    chance = random.Random(seed)
    others = [two_worlds._patient(f"P{n:02d}", run, chance) for n in range(patients)]
    one = two_worlds._patient(name, run, chance)
    for way in ways:
        way(one, others, chance)
    write(folder / "data", others, table)
    before = world(folder / "data", run, folder / "cache")
    write(folder / "data", [*others, one], table)
    return before, world(folder / "data", run, folder / "cache")


def check_ways(folder: Path, *ways: Way) -> None:
    """Raise unless the guarantee holds for a patient who is hostile in these ways."""
    check(*worlds(folder, *ways), "AAA", 1.0)


STUDIES, IMAGES, SERIES = (
    two_worlds._copy_uids(level)
    for level in ("StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID")
)


def test_all_checks_are_green_without_a_fault(tmp_path: Path) -> None:
    check_ways(tmp_path / "1", STUDIES, IMAGES, SERIES, two_worlds._broken)
    check_ways(tmp_path / "2", two_worlds._rows_of_others, two_worlds._rows_of_nobody)
    check_ways(tmp_path / "3", two_worlds._many)
    check_ways(tmp_path / "4", two_worlds._bad_lines)


# --- the split ---------------------------------------------------------------------------


def by_quota(self: SiteCohort, rules: Split, key: SplitKey, fold: int = 0) -> dict[str, Part]:
    """Return parts as they were made before: so many of each class, roundings carried over."""
    del fold
    strata: dict[float, list[str]] = defaultdict(list)
    for place, name in enumerate(self.items.pseudonyms):
        strata[float(self.items.target[self.items.items_of(place)[0]][0])].append(name)
    parts: dict[str, Part] = dict.fromkeys(self.items.pseudonyms, "train")
    for part, fraction in (("test", rules.test_fraction), ("validation", 0.15)):
        seen = taken = 0
        for _, names in sorted(strata.items()):
            free = [n for n in names if parts[n] == "train"]
            seen += len(free)
            wanted = round(fraction * seen) - taken
            taken += wanted
            for name in sorted(free, key=partial(key.draw, part))[:wanted]:
                parts[name] = part  # type: ignore[assignment]  # one of the two above
    return parts


def check_seeds(folder: Path) -> None:
    """Raise unless the guarantee holds for hospitals of several sizes."""
    for seed in range(12):
        before, after = worlds(folder / str(seed), patients=5 + seed, seed=seed)
        check(before, after, "AAA", 1.0)


def test_quotas_by_class_move_others(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(SiteCohort, "parts", by_quota)
    with pytest.raises(AssertionError, match="one patient moved"):
        check_seeds(tmp_path)


# --- who is there ------------------------------------------------------------------------


def test_a_rule_that_takes_out_what_two_patients_share(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(QualityRules, "by_patient", lambda self: self)
    with pytest.raises(AssertionError, match=r"moved the sum|who is there"):
        check_ways(tmp_path, STUDIES)


def test_files_of_two_patients_that_are_compared(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        WantedImages, "grouping", lambda self: Grouping(by_series=self.rules.dimensions == 3)
    )
    with pytest.raises(AssertionError, match=r"moved the sum|who is there|counts"):
        check_ways(tmp_path, IMAGES)


def test_rows_that_have_a_say_about_others(monkeypatch: Patch, tmp_path: Path) -> None:
    def together(*given: object, by_patient: bool, **named: object) -> object:
        del by_patient
        return read_labels(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(cohort, "read_labels", together)
    with pytest.raises(AssertionError, match=r"moved the sum|who is there"):
        check_ways(tmp_path, two_worlds._rows_of_others)


def check_draw() -> None:
    """Raise unless others have the same images chosen, and are drawn alike, beside one more."""
    everybody = patients_of((3, 5, 4, 1, 6))
    fewer = without(everybody, 0)
    for rate in (1.0, 0.5):
        chosen = [
            _chosen(p, patient_sampling.draw(p, rate, 2, Silence())) for p in (everybody, fewer)
        ]
        chosen[0].pop("patient 0", None)
        if chosen[0] != chosen[1]:
            message = f"one patient changed what is drawn of others: {chosen}"
            raise AssertionError(message)


def _chosen(patients: Patients, drawn: DrawnPatients) -> dict[str, set[float]]:
    found: dict[str, set[float]] = defaultdict(set)
    for places, count in zip(drawn.place.tolist(), drawn.items.tolist(), strict=True):
        name = patients.pseudonyms[int(patients.patient[places[0]])]
        found[name] |= {float(patients.table[place].sum()) for place in places[:count]}
    return found


def test_images_that_are_chosen_in_the_order_of_all_patients(monkeypatch: Patch) -> None:
    class InOrder:
        def __init__(self, noise: NoiseSource) -> None:
            self.noise = noise

        def uniform(self, _names: object, patient: torch.Tensor, _place: object) -> torch.Tensor:
            return self.noise.uniform(len(patient))

    check_draw()
    monkeypatch.setattr(patient_sampling, "PatientDraw", InOrder)
    with pytest.raises(AssertionError, match="what is drawn of others"):
        check_draw()


def test_a_site_that_stops_where_a_column_says_nothing_tells_of_its_patients(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    """It goes on in a run with privacy; without, it stops (test_column_check)."""
    monkeypatch.setattr(cohort, "doubt_of", lambda *_: "A column says nothing.")
    check_ways(tmp_path / "private")
    plain = two_worlds.run_named(RUN).model_copy(update={"privacy": "none"})
    monkeypatch.setattr(two_worlds, "run_named", lambda _run: plain)
    with pytest.raises(ColumnsUnusable):
        check_ways(tmp_path / "plain")


@pytest.mark.parametrize("fault", ["as records", "more than half", "alphabet"])
def test_a_site_that_stops_where_a_patients_lines_cannot_be_read(
    monkeypatch: Patch, tmp_path: Path, fault: str
) -> None:
    if fault == "as records":
        monkeypatch.setattr(labels, "read_table", lambda path, sheet, **_: read_table(path, sheet))
    elif fault == "alphabet":
        monkeypatch.setattr(
            table_csv, "_lines_of", lambda data, codec: data.decode(codec).splitlines()
        )
    else:
        real = labels.misshapen

        def stops(path: Path, unusable: Sequence[Unusable], text: TextTable) -> str:
            if real(path, unusable, text):
                raise CohortError(str(path))
            return ""

        monkeypatch.setattr(labels, "misshapen", stops)
    with pytest.raises((CohortError, UnicodeDecodeError, AssertionError)):
        check_ways(tmp_path, two_worlds._bad_lines)


def _merged(one: Patient, others: list[Patient], chance: random.Random) -> None:
    """Add a row whose identifier and outcome are merged with those of all rows below."""
    del others, chance
    row = (
        f'<row r="{{r}}"><c r="A{{r}}" t="inlineStr"><is><t>{one.name}</t></is></c>'
        '<c r="D{r}"><v>0</v></c></row>'
    )
    one.odd_rows.append(row)
    one.areas += ["D{r}:D{below}", "A{r}:A{below}"]


def check_sheets(folder: Path) -> None:
    """Raise unless the guarantee holds for a patient whose row of a spreadsheet is merged."""
    for place, way in enumerate((_merged, two_worlds._bad_lines)):
        check(*worlds(folder / str(place), way, table="xlsx"), "AAA", 1.0)


@pytest.mark.parametrize("fault", ["merged", "a cell", "as a whole"])
def test_a_spreadsheet_of_which_one_row_says_what_others_hold(
    monkeypatch: Patch, tmp_path: Path, fault: str
) -> None:
    check_sheets(tmp_path / "sound")
    if fault == "merged":
        real = spreadsheet._Merged.of
        monkeypatch.setattr(
            spreadsheet._Merged, "of", lambda *a, **k: real(*a, **k | {"line_by_line": False})
        )
    elif fault == "a cell":
        monkeypatch.setattr(spreadsheet._CellReader, "_cell", spreadsheet._CellReader._text)
    else:
        monkeypatch.setattr(labels, "read_table", lambda path, sheet, **_: read_table(path, sheet))
    with pytest.raises((CohortError, AssertionError)):
        check_sheets(tmp_path / "faulty")


def test_one_patients_odd_texts_and_masks_stop_nobody(tmp_path: Path) -> None:
    check_ways(tmp_path / "ages", two_worlds._odd_ages)
    check_masks(tmp_path, seeds=4)


def check_masks(folder: Path, seeds: int) -> None:
    """Raise unless the guarantee holds for a patient whose masks are none."""
    for seed in range(seeds):
        before, after = worlds(
            folder / str(seed), two_worlds._odd_masks, patients=2, seed=seed, run="outlines"
        )
        check(before, after, "AAA", 1.0)


def test_an_age_in_superscripts_that_is_read_as_a_number(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cohort_account, "age_of", lambda row: float(row.patient_age[:3] or 0))
    with pytest.raises(ValueError, match="could not convert"):
        check_ways(tmp_path, two_worlds._odd_ages)


def test_a_mask_of_which_a_library_makes_nothing(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(prepare, "read_mask", image_masks._read)
    monkeypatch.setattr(prepare, "contained", nullcontext)  # two nets, one in the other
    monkeypatch.setattr(image_masks, "_sop_class", lambda *_: "")  # as if only the reader looked
    with pytest.raises(TypeError, match="unhashable"):
        check_masks(tmp_path, seeds=9)


# --- an audit ----------------------------------------------------------------------------

CLAIMED, DELTA, GAMES = 1.0, 1e-5, 40_000


def audited(before: World, after: World) -> float:
    """Return the epsilon that the release of one of two noised sums has for certain.

    The noise is normal along every direction, so along the one in which the sums lie apart, too;
    how often a guess by it is right says how far apart they are (Dong et al. 2022, Gaussian DP).
    """
    sigma = calibrate(CLAIMED, DELTA, 1.0, 1)
    apart = float((after.sum - before.sum).norm())
    second = torch.rand(GAMES, generator=torch.Generator().manual_seed(0)) < 0.5
    told = second * apart + ChaChaNoise().gaussian((GAMES,), sigma)
    right = float(((told > apart / 2) == second).double().mean()) if apart else 0.5
    least = right - 4 * 0.5 / math.sqrt(GAMES)  # four standard errors
    if least <= 0.5:
        return 0.0
    spread = 2 * NormalDist().inv_cdf(least)
    return epsilon_of([mechanism_of(1 / spread, steps=1)], DELTA)


def test_an_audit_from_the_folder_on_stays_below_the_claim(tmp_path: Path) -> None:
    before, after = worlds(tmp_path, STUDIES, IMAGES, two_worlds._rows_of_others)
    assert audited(before, after) < CLAIMED


def exceeds(make: Callable[[int], tuple[World, World]], seeds: int) -> bool:
    return any(audited(*make(seed)) > CLAIMED for seed in range(seeds))


def test_an_audit_finds_the_old_split_out(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(SiteCohort, "parts", by_quota)
    assert exceeds(
        lambda seed: worlds(tmp_path / str(seed), patients=5 + seed, seed=seed), seeds=12
    )


def test_an_audit_finds_the_old_rule_of_two_identifiers_out(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.setattr(QualityRules, "by_patient", lambda self: self)
    assert exceeds(lambda seed: worlds(tmp_path / str(seed), STUDIES, seed=seed), seeds=3)
