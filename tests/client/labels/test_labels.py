from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.dicom.reasons import Reason, UnusableFile
from client.labels.clinical_columns import encode_rows
from client.labels.label_table import Labels, read_labels
from common.config.run_config import CategoryColumn, NumberColumn, Table
from common.platform.errors import CohortError


def table(path: Path, text: str, *, with_images: bool = True, encoding: str = "utf-8") -> Labels:
    (path / "labels.csv").write_bytes(text.encode(encoding))
    return read_labels(path / "labels.csv", ("ill",), with_images=with_images)


def keys(
    patient: str = "P1", study: str = "S1", series: str = "", accession: str = ""
) -> dict[str, str]:
    return {
        "PatientID": patient,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "AccessionNumber": accession,
    }


def reasons(labels: Labels) -> list[Reason]:
    return [problem.reason for problem in labels.unusable]


def test_the_most_specific_key_that_is_filled_in_finds_the_row(tmp_path: Path) -> None:
    labels = table(
        tmp_path, "PatientID,StudyInstanceUID,SeriesInstanceUID,ill\nP1,,,0\nP1,S1,,1\nP1,S1,R1,2\n"
    )
    found = [
        labels.rows[labels.find(k)]["ill"]
        for k in (keys(study="other"), keys(series="other"), keys(series="R1"))
    ]
    assert found == ["0", "1", "2"]


def test_tables_by_study_or_accession_alone_are_joined(tmp_path: Path) -> None:
    assert table(tmp_path, "StudyInstanceUID,ill\nS1,1\n").find(keys()) == 0
    assert table(tmp_path, "AccessionNumber,ill\nA7,1\n").find(keys(accession="A7")) == 0


def test_an_empty_identifier_matches_nothing(tmp_path: Path) -> None:
    labels = table(tmp_path, "PatientID,AccessionNumber,ill\nP1,,1\n")
    with pytest.raises(UnusableFile) as caught:
        labels.find(keys(patient="P2"))
    assert caught.value.reason is Reason.LABEL_MISSING


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffPatientID,ill\nP1,1\n",
        "PatientID;ill\nP1;1\n",
        '"PatientID" , "ill"\n"P1" , "1"\n',
        "PatientID\till\r\nP1\t1\r\n",
        " PatientID , ill \n P1 , 1 \n\n,\n",
        'PatientID,ill,note\nP1,1,"two\nlines, and a comma"\n',
        "PatientID,ill\nP1,1,,\n",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    labels = table(tmp_path, text)
    assert labels.rows[labels.find(keys())]["ill"] == "1"
    assert not labels.unusable


def test_rows_that_repeat_each_other_are_one_and_rows_that_disagree_are_none(
    tmp_path: Path,
) -> None:
    rows = "P1,,1\nP1,,1\nP2,,0\nP2,,1\nP2,S9,1\n"
    labels = table(tmp_path, f"PatientID,StudyInstanceUID,ill\n{rows}")
    assert labels.find(keys()) == 0
    assert reasons(labels) == [Reason.LABEL_CONFLICT]
    assert labels.unusable[0].what == "line 5"
    for study in ("S1", "S9"):  # the whole patient is left out
        with pytest.raises(UnusableFile) as caught:
            labels.find(keys("P2", study))
        assert caught.value.reason is Reason.LABEL_CONFLICT


def test_rows_without_key_or_with_too_many_cells_are_listed_by_line(tmp_path: Path) -> None:
    labels = table(tmp_path, "PatientID,ill\nP1,1\n,1\nP2,1,5\nP3\n")
    assert [(p.reason, p.what) for p in labels.unusable] == [
        (Reason.NO_KEY, "line 3"),
        (Reason.ROW_MALFORMED, "line 4"),
        (Reason.ROW_MALFORMED, "line 5"),
    ]


def test_without_images_every_row_is_an_item_and_names_its_patient(tmp_path: Path) -> None:
    labels = table(
        tmp_path,
        "PatientID,StudyInstanceUID,ill,age\nP1,,1,5\nP1,,1,6\n,S1,1,5\n",
        with_images=False,
    )
    assert labels.distinct(("ill", "age")) == [0, 1]
    assert labels.distinct(("ill",)) == [0]
    assert reasons(labels) == [Reason.NO_KEY]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("patientid,ill\nP1,1\n", "Did you mean patientid"),
        ("PatientID,Ill\nP1,1\n", "no column ill. Did you mean Ill?"),
        ("PatientID,outcome\nP1,1\n", "no column ill. It has PatientID, outcome."),
        ("PatientID,ill,ill\nP1,1,1\n", "column ill twice"),
    ],
)
def test_a_table_that_lacks_something_is_named_with_what_is_near(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(CohortError, match=message) as caught:
        table(tmp_path, text)
    assert "labels.csv" in str(caught.value)


def test_a_table_in_another_encoding_says_what_to_do(tmp_path: Path) -> None:
    for encoding in ("latin-1", "cp1250"):
        with pytest.raises(CohortError, match="UTF-8"):
            table(tmp_path, "PatientID,ill\nP1,1\nMüller,1\n", encoding=encoding)
    with pytest.raises(CohortError, match="line 3 holds a character that is not UTF-8"):
        table(tmp_path, "PatientID,ill\nP1,1\nMüller,1\n", encoding="latin-1")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="There is no"):
        read_labels(tmp_path / "labels.csv", (), with_images=True)


COLUMNS = Table(
    numbers=(
        NumberColumn(column="age", center=50, scale=10),
        NumberColumn(column="crp", transform="log"),
    ),
    categories=(CategoryColumn(column="sex", values=("f", "m")),),
)


def encoded(tmp_path: Path, row: str) -> tuple[list[float], list[str]]:
    labels = table(tmp_path, f"PatientID,ill,age,crp,sex\nP1,1,{row}\n")
    values, problems = encode_rows(labels, [0], COLUMNS)
    return [round(v, 4) for v in values[0].tolist()], [p.detail for p in problems]


def test_numbers_categories_and_missing_indicators_stand_in_this_order(tmp_path: Path) -> None:
    assert encoded(tmp_path, "70,0,m") == ([2, 0, 0, 1, 0, 0, 0], [])
    assert encoded(tmp_path, ",,") == ([0, 0, 0, 0, 1, 1, 1], [])
    assert encoded(tmp_path, "NA,?,nan") == ([0, 0, 0, 0, 1, 1, 1], [])


@pytest.mark.parametrize("age", ["old", "1_000", "inf", "50 y", "1e999", "1e40", "0x10"])
def test_what_is_no_number_is_missing_and_listed(tmp_path: Path, age: str) -> None:
    values, problems = encoded(tmp_path, f"{age},0,f")
    assert values == [0, 0, 1, 0, 1, 0, 0]
    assert problems == [f"column age holds {age!r}, expected a number such as 12.5"]


def test_a_logarithm_of_too_little_and_an_unknown_category_are_listed(tmp_path: Path) -> None:
    values, problems = encoded(tmp_path, "50,-1,d")
    assert values == [0, 0, 0, 0, 0, 1, 1]
    assert problems == [
        "column crp holds '-1', expected a number such as 12.5, above -1 for its logarithm",
        "column sex holds 'd', expected one of f, m",
    ]


def test_a_row_of_several_images_is_listed_once(tmp_path: Path) -> None:
    labels = table(tmp_path, "PatientID,ill,age,crp,sex\nP1,1,old,0,f\n")
    values, problems = encode_rows(labels, [0, 0, 0], COLUMNS)
    assert values.shape == (3, COLUMNS.width)
    assert len(problems) == 1
    assert encode_rows(labels, [], COLUMNS)[0].shape == (0, COLUMNS.width)
    assert values.dtype == torch.float32
