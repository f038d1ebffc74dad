from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from client.cohort.join_report import JoinReport, difference, join_report, near
from client.labels.csv_text import KEYS
from client.labels.label_table import read_labels
from tests.client.dicom_files import config_of, image, noise, save, write_labels
from tests.client.terminals import Site

ROUNDED = "a spreadsheet rounded the identifier; format the column as text"
SEVERAL = "several small differences, such as case, zeros in front or blanks"


def report(
    folder: Path,
    text: str,
    images: Sequence[dict[str, str]],
    withdrawn: frozenset[str] = frozenset(),
) -> JoinReport:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    labels = read_labels(folder / "labels.csv", ("ill",), with_images=True, withdrawn=withdrawn)
    return join_report(labels, images)


def keys(
    patient: str = "", study: str = "", accession: str = "", series: str = ""
) -> dict[str, str]:
    return {
        "PatientID": patient,
        "StudyInstanceUID": study,
        "AccessionNumber": accession,
        "SeriesInstanceUID": series,
    }


def test_matches_are_counted_by_the_key_that_found_them(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        "PatientID,AccessionNumber,ill\nP1,,1\nP2,A2,0\nP2,A2,0\nP3,,1\n",
        [keys("P1", "S1"), keys("P1", "S2"), keys("P2", "S3", "A2"), keys("P9", "S4")],
    )
    assert (found.rows, found.matched_rows, found.images, found.matched_images) == (4, 2, 4, 3)
    assert found.by_key == {"PatientID": 2, "AccessionNumber": 1}
    assert found.duplicate_rows == 1
    assert [(one.what, one.cause) for one in found.unmatched_rows] == [("line 5", "")]
    assert [one.value for one in found.unmatched_images] == ["P9"]


@pytest.mark.parametrize(
    ("row", "image", "cause"),
    [
        ("12345", "0012345", "zeros in front"),
        ("0012345", "12345", "zeros in front"),
        ("12345.0", "12345", "the point and zero of a number (12345.0)"),
        ("ab12", "AB12", "upper and lower case"),
        ("AB 12", "AB12", "blanks or signs between the characters"),
        ("AB-12", "AB_12", "blanks or signs between the characters"),
        ("ABO1", "AB01", "O for 0, or I or l for 1"),
        ("I23", "123", "O for 0, or I or l for 1"),
        ("ab-012.0", "AB 012", SEVERAL),
        ("1.23E+15", "1234567890123456", ROUNDED),
        ("X7", "Y7", ""),
    ],
)
def test_what_is_not_matched_has_its_likely_cause(
    tmp_path: Path, row: str, image: str, cause: str
) -> None:
    found = report(tmp_path, f"PatientID,ill\n{row},1\n", [keys(image, "S1")])
    assert [one.cause for one in found.unmatched_rows] == [cause]
    if cause and not cause.startswith("a spreadsheet"):
        assert [one.cause for one in found.unmatched_images] == [cause]
    assert any(cause in line for line in found.lines())


def test_an_accession_number_that_dicom_cut_off_is_told(tmp_path: Path) -> None:
    found = report(
        tmp_path, "AccessionNumber,ill\n12345678901234567,1\n", [keys("P", "S", "1234567890123456")]
    )
    assert "more than 16 characters" in found.unmatched_rows[0].cause


def test_an_identifier_in_the_wrong_column_and_images_without_the_key_are_told(
    tmp_path: Path,
) -> None:
    found = report(tmp_path, "PatientID,ill\nA77,1\n", [keys("P1", "S1", "A77")])
    assert found.unmatched_rows[0].cause == "PatientID holds what is AccessionNumber in the images"
    found = report(tmp_path, "AccessionNumber,ill\nA77,1\n", [keys("P1", "S1")])
    assert found.unmatched_images[0].cause == "the images have no AccessionNumber"


def test_rows_that_disagree_and_withdrawn_patients_are_no_part_of_what_is_missing(
    tmp_path: Path,
) -> None:
    found = report(
        tmp_path,
        "PatientID,ill\nP1,1\nP1,0\nP2,1\nP3,0\n",
        [keys("P1", "S1"), keys("P2", "S2"), keys("P3", "S3")],
        frozenset({"P3"}),
    )
    assert (found.rows, found.images, found.conflicting_keys) == (3, 2, 1)
    assert not found.unmatched_images
    assert not found.unmatched_rows


def test_a_thousand_rows_that_miss_their_zeros_are_told_in_one_line(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 2}\n" for n in range(1, 1001))
    found = report(
        tmp_path, f"PatientID,ill\n{rows}", [keys(f"{n:06}", f"S{n}") for n in range(1, 1001)]
    )
    assert found.lines() == [
        "0 of 1000 rows of the table have images; 0 of 1000 images have a row.",
        "Likely cause: zeros in front (2000 x).",
    ]


def test_near_identifiers_are_those_that_people_confuse() -> None:
    assert near("21-canary", ["0021-Canary", "21", "22-canary", "21-canary"]) == ("0021-Canary",)
    assert len(KEYS) == 4


def test_index_of_a_run_says_how_table_and_images_found_each_other(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.set_up()
    for number in range(6):
        dataset = image(noise(16, 16, seed=number), f"00{number}", f"S{number}")
        save(site.data / f"{number}.dcm", dataset)
    rows = [{"PatientID": f"00{n}" if n < 4 else n, "ill": n % 2} for n in range(6)]
    write_labels(site.data, rows)
    config = tmp_path / "run.yaml"
    config.write_text(config_of().to_yaml())
    out = site.types("index", config).out
    assert "4 of 6 rows of the table have images; 4 of 6 images have a row (4 by PatientID)." in out
    assert "Likely cause: zeros in front (4 x)." in out
    site.types("withdraw", "003", "--yes")
    out = site.types("index", config).out
    assert "3 of 5 rows of the table have images; 3 of 5 images have a row (3 by PatientID)." in out
    assert "1 x  WITHDRAWN" in out


def test_accents_that_are_written_in_two_ways_are_named() -> None:
    composed, apart = "M\u00fcller", "Mu\u0308ller"
    assert near(composed, {apart, "Muller"}) == (apart,)
    assert difference(composed, apart) == "how accents are written (Unicode's forms)"
