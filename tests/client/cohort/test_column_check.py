"""Columns that would be read wrongly, or not at all: the site stops and says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from openpyxl import Workbook
from pyarrow import parquet

from client.cohort.column_check import one_sided, questions_about
from client.cohort.site_cohort import SiteCohort
from client.labels.schema import schema_path
from client.node.request_handler import RequestHandler
from client.node.worker import site_context
from common.config.run_config import RunConfig, parse_config
from common.messages.wire import Proposal, Refusal, RefusalReason, Standing
from common.platform.errors import CohortError
from tests.client.dicom_files import config_of, load
from tests.client.terminals import Site

BINARY = "{kind: diagnosis, target: ill}"
SURVIVAL = (
    "{kind: prognosis, outcome: survival, event: ill, time: time, unit: days, intervals: [90, 180]}"
)
NUMBERS = "{table: {numbers: [{column: age}, {column: crp}]}}"
AGE = "{table: {numbers: [{column: age}]}}"


def run(task: str = BINARY, cohort: str = NUMBERS) -> RunConfig:
    return config_of(task, cohort, "table")


def read(folder: Path, text: str, config: RunConfig, schema: str = "") -> SiteCohort:
    table = folder / "labels.csv"
    table.write_bytes(text.encode("utf-8"))
    if schema:
        schema_path(table).write_text(schema, encoding="utf-8")
    return load(folder, config, folder / "cache")


def values(cohort: SiteCohort) -> list[list[float]]:
    return [[round(v, 4) for v in row] for row in cohort.items.table.tolist()]


@pytest.mark.parametrize(
    "text",
    [
        "PatientID;ill;age;crp\nP1;0;50,5;1.234,25\nP2;1;51;2,5\n",
        "sep=;\r\nPatientID;ill;age;crp\r\nP1;0;50,5;1234,25\r\nP2;1;51;2,5\r\n",
        '\ufeff"sep=;"\nPatientID;ill;age;crp\nP1;0;50,5;1234,25\nP2;1;51;2,5\n',
        '"Labor, Ort, Tag, Uhr, Art";"PatientID";ill;age;crp\na;P1;0;50,5;1234,25\na;P2;1;51;2,5\n',
        "Labor, Wert, Tag, Ort, Art;PatientID;ill;age;crp\na;P1;0;50,5;1234,25\na;P2;1;51;2,5\n",
        "PatientID\till\tage\tcrp\nP1\t0\t50,5\t1'234,25\nP2\t1\t51\t2,5\n",
        'PatientID,ill,age,crp\nP1,0,"50,5","1 234,25"\nP2,1,51,"2,5"\n',
        'PatientID, ill, age, crp\nP1, 0, "50.5", "1,234.25"\nP2, 1, 51, "2.5"\n',
        "PatientID|ill|age|crp\nP1|0|50.5|1234.25\nP2|1|51|2.5\n",
        'PatientID,ill,age,crp\n="P1",0,="50.5",1234.25\n="P2",1,51,2.5\n',
    ],
)
def test_numbers_are_read_whatever_the_country(tmp_path: Path, text: str) -> None:
    found = values(read(tmp_path, text, run()))
    assert found == [[50.5, 1234.25, 0, 0], [51, 2.5, 0, 0]]


def test_a_table_in_utf_16_is_read(tmp_path: Path) -> None:
    text = "PatientID;ill;age;crp\nMüller;0;50,5;1,5\nP2;1;51;2,5\n"
    (tmp_path / "labels.csv").write_bytes(text.encode("utf-16"))
    cohort = load(tmp_path, run(), tmp_path / "cache")
    assert cohort.items.pseudonyms == ("Müller", "P2")
    assert values(cohort)[0][:2] == [50.5, 1.5]


def test_what_may_be_two_numbers_is_listed_until_the_schema_says_which(tmp_path: Path) -> None:
    text = 'PatientID,ill,age,crp\nP1,0,50,"1,234"\nP2,1,51,2.5\nP3,1,52,3.5\n'
    cohort = read(tmp_path, text, run())
    assert values(cohort)[0] == [50, 0, 0, 1]
    (problem,) = cohort.unusable
    assert problem.what == "line 2"
    assert "which is 1.234 or 1234: write decimal: comma" in problem.detail
    for decimal, value in (("comma", 1.234), ("point", 1234.0)):
        again = read(tmp_path, text, run(), f"decimal: {decimal}\n")
        assert values(again)[0] == [50, value, 0, 0]


def test_a_point_before_three_figures_is_thousands_or_not_in_a_table_of_semicolons(
    tmp_path: Path,
) -> None:
    text = "PatientID;ill;age;crp\nP1;0;50,5;1.234\nP2;1;51;2.345\n"
    with pytest.raises(CohortError, match=r"2 of 2 values of column crp.* 1\.234 or 1234"):
        read(tmp_path, text, run())
    assert values(read(tmp_path, text, run(), "decimal: point\n"))[1][1] == 2.345


def test_times_with_decimal_commas_are_times(tmp_path: Path) -> None:
    text = "PatientID;ill;age;time\nP1;0;50;100,5\nP2;1;51;20,25\n"
    cohort = read(tmp_path, text, run(SURVIVAL, AGE))
    assert cohort.items.target[:, -2].tolist() == [100.5, 20.25]


@pytest.mark.parametrize("cell", ["", "NA", "x", "12,5 mg/L"])
def test_a_column_that_says_nothing_of_anybody_stops_the_run(tmp_path: Path, cell: str) -> None:
    rows = "".join(f"P{n};{n % 2};5{n},5;{cell}\n" for n in range(6))
    with pytest.raises(CohortError, match=r"column crp|Column crp is empty in all 6 rows"):
        read(tmp_path, f"PatientID;ill;age;crp\n{rows}", run())


def test_a_table_parted_by_commas_with_decimal_commas_names_the_cause(tmp_path: Path) -> None:
    rows = "".join(f"P{n},{n % 2},5{n},5,2,5\n" for n in range(6))
    with pytest.raises(CohortError, match=r"6 of 6 lines .* Decimal commas"):
        read(tmp_path, f"PatientID,ill,age,crp\n{rows}", run())


def test_a_column_of_which_more_than_half_is_unusable_stops_the_run(tmp_path: Path) -> None:
    stage = "{table: {categories: [{column: stage, values: [I, II]}]}}"
    rows = ["P1,0,I", "P2,1,II", "P3,0,i", "P4,1,ii", "P5,0,"]
    text = "PatientID,ill,stage\n" + "\n".join(rows) + "\n"
    assert len(read(tmp_path, text, run(cohort=stage)).unusable) == 2  # one half is listed
    text += "P6,1,ii\n"
    with pytest.raises(CohortError, match=r"3 of 5 values of column stage.*did you mean I\?"):
        read(tmp_path, text, run(cohort=stage))
    # What the schema refused counts, too.
    schema = "columns: {stage: {type: category, values: [I, II]}}\n"
    with pytest.raises(CohortError, match=r"3 of 5 values of column stage"):
        read(tmp_path, text, run(cohort=stage), schema)


def test_a_category_is_the_same_however_its_number_is_written(tmp_path: Path) -> None:
    grade = "{table: {categories: [{column: grade, values: ['1', '2']}]}}"
    written = ["1", "1.0", "01", " 1 ", '"1,0"', "2.00"]
    text = "PatientID,ill,grade\n" + "".join(f"P{n},{n % 2},{t}\n" for n, t in enumerate(written))
    cohort = read(tmp_path, text, run(cohort=grade))
    assert values(cohort) == [[1, 0, 0]] * 5 + [[0, 1, 0]]
    assert not cohort.unusable


def test_classes_are_the_same_however_their_number_is_written(tmp_path: Path) -> None:
    task = "{kind: diagnosis, type: multiclass, target: ill, classes: ['1', '2', '3']}"
    text = "PatientID,ill,age\nP1,1.0,50\nP2,2,51\nP3,03,52\n"
    assert read(tmp_path, text, run(task, AGE)).items.target.argmax(1).tolist() == [0, 1, 2]


def coded(written: Sequence[str], count: int = 20) -> str:
    rows = (f"P{n:02},{written[n % len(written)]},{n},{n}" for n in range(count))
    return "PatientID,ill,age,time\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("task", [BINARY, SURVIVAL])
@pytest.mark.parametrize(
    "codes",
    [
        ("1", "2"),
        ("1.0", "2.0"),
        ("0", "2"),
        ("-1", "1"),
        ("1", "2", "3"),
        ("0", "1", "2"),
        ("1",) * 19 + ("2",),
        ("2",),
        ("yes", "perhaps"),
        ("ja", "unbekannt"),
    ],
)
def test_an_outcome_in_another_code_stops_with_a_question(
    tmp_path: Path, task: str, codes: tuple[str, ...]
) -> None:
    question = r"Column ill holds .*(which of them is the event|what do its).*codes"
    with pytest.raises(CohortError, match=question):
        read(tmp_path, coded(codes), run(task, AGE))


def test_a_single_code_has_no_meaning_suggested(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r'codes: \{"2": 0 or 1\}'):
        read(tmp_path, coded(("2",)), run(BINARY, AGE))


def test_classes_and_categories_in_another_code_stop_with_a_question(tmp_path: Path) -> None:
    """1 and 2 for 0 and 1, or 1 to 3 for 0 to 2: half or more of the cells seem to fit."""
    two = "{kind: diagnosis, target: ill, classes: ['0', '1']}"
    three = "{kind: diagnosis, type: multiclass, target: ill, classes: ['0', '1', '2']}"
    for task, codes in ((two, ("1", "2")), (three, ("1", "2", "3"))):
        with pytest.raises(CohortError, match=r"Column ill holds 1, 2.*codes"):
            read(tmp_path, coded(codes), run(task, AGE))
    # The class past the last may be rare.
    with pytest.raises(CohortError, match=r"Column ill holds 1, 2, 3.*codes"):
        read(tmp_path, coded(("1",) * 10 + ("2",) * 9 + ("3",)), run(three, AGE))
    smoker = "{table: {categories: [{column: smoker, values: ['0', '1']}]}}"
    text = "PatientID,ill,smoker\n" + "".join(f"P{n},{n % 2},{n // 2 % 2 + 1}\n" for n in range(20))
    with pytest.raises(CohortError, match=r"Column smoker holds 1, 2, expected 0 and 1: what do"):
        read(tmp_path, text, run(cohort=smoker))
    # Words, and a stray code where a value is nobody's, are listed.
    grade = "{kind: diagnosis, type: multiclass, target: ill, classes: ['1', '2', '3']}"
    assert len(read(tmp_path, coded(("1", "2") * 20 + ("9",), 41), run(grade, AGE)).unusable) == 1


def test_the_schema_says_which_code_is_the_event(tmp_path: Path) -> None:
    for codes, events in (("{1: 0, 2: 1}", [0, 1]), ("{1: 1, 2: 0}", [1, 0])):
        schema = f"columns: {{ill: {{type: category, codes: {codes}}}}}\n"
        for written in (("1", "2"), ("1.0", "2.0")):
            cohort = read(tmp_path, coded(written), run(SURVIVAL, AGE), schema)
            assert cohort.items.target[:2, -1].tolist() == events
            assert not cohort.unusable
    # What no code is named for is missing, even where the run would understand it.
    schema = 'columns: {ill: {type: category, codes: {"2": "1", "1": "0"}}}\n'
    cohort = read(tmp_path, coded(("1", "2", "2", "0")), run(BINARY, AGE), schema)
    assert len(cohort.items) == 15


@pytest.mark.parametrize(
    "codes", [("0", "1"), ("yes", "no"), ("J", "N"), ("TRUE", "FALSE"), ("0.0", "1.0"), ("1",)]
)
def test_what_is_plainly_two_values_or_one_is_no_question(
    tmp_path: Path, codes: tuple[str, ...]
) -> None:
    assert len(read(tmp_path, coded(codes), run(BINARY, AGE)).items) == 20


def test_a_few_odd_cells_beside_both_outcomes_are_listed(tmp_path: Path) -> None:
    cohort = read(tmp_path, coded(("0", "1") * 20 + ("9",), 41), run(BINARY, AGE))
    assert [problem.what for problem in cohort.unusable] == ["line 42"]


def test_an_outcome_that_everybody_had_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(coded(("1",)), encoding="utf-8")
    (said,) = one_sided(tmp_path / "labels.csv", run(SURVIVAL, AGE))
    assert "Every row holds 1 in column ill, which is read as the event" in said


def test_codes_stop_in_a_spreadsheet_and_in_parquet_as_well(tmp_path: Path) -> None:
    codes = [1.0, 2.0] * 5
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["PatientID", "ill", "age"])
    for number, code in enumerate(codes):
        sheet.append([f"P{number}", code, number])
    book.save(tmp_path / "labels.xlsx")
    people = [f"P{n}" for n in range(10)]
    columns = {"PatientID": people, "ill": codes, "age": [float(n) for n in range(10)]}
    parquet.write_table(pa.table(columns), tmp_path / "labels.parquet")
    for name in ("labels.xlsx", "labels.parquet"):
        with pytest.raises(CohortError, match="which of them is the event"):
            load(tmp_path, run(BINARY, AGE), tmp_path / "cache", labels=tmp_path / name)


def test_codes_that_are_written_as_decimals_get_rs_question(tmp_path: Path) -> None:
    text = "PatientID,ill,age\nP1,1.0,50\nP2,2.0,51\nP3,2.0,52\n"
    with pytest.raises(CohortError, match="which of them is the event"):
        read(tmp_path, text, run(BINARY, AGE))


@pytest.mark.parametrize("sign", ["\t", "|", ","])
def test_a_point_beside_decimal_commas_is_asked_about(tmp_path: Path, sign: str) -> None:
    """Where semicolons part the cells, 1.234 is left out by itself; here it was read as 1.234."""
    rows = [
        ["PatientID", "ill", "age", "crp"],
        ["P1", "0", '"50,5"', '"2,5"'],
        ["P2", "1", "51", "1.234"],
        ["P3", "1", "52", '"1,5"'],
    ]
    text = "\n".join(sign.join(row) for row in rows)
    with pytest.raises(CohortError, match=r"line 2: 50,5.*1\.234 in line 3 is 1234 or 1\.234"):
        read(tmp_path, text, run())
    private = parse_config(
        run().to_yaml().replace("privacy: none", "privacy: {unit: patient, epsilon: 2.0}")
    )
    assert "decimal: comma or decimal: point" in load(tmp_path, private, tmp_path / "p").doubt
    for decimal, crp in (("comma", 1234.0), ("point", 1.234)):
        found = read(tmp_path, text, run(), f"decimal: {decimal}\n")
        assert values(found)[1][1] == crp
    points = text.replace('"50,5"', "50.5").replace('"2,5"', "2.5").replace('"1,5"', "1.5")
    schema_path(tmp_path / "labels.csv").unlink()
    assert values(read(tmp_path, points, run()))[1][1] == 1.234


def test_a_title_above_the_header_is_named(tmp_path: Path) -> None:
    text = "Export of 1 January;;;\n;;;\nPatientID;ill;age;crp\nP1;0;50;1\n"
    with pytest.raises(CohortError, match="not in its first line; line 3 looks like it"):
        read(tmp_path, text, run())


@pytest.mark.parametrize(
    ("other", "how"),
    [
        ("0012", "zeros in front"),
        ("12.0", "the point and zero"),
        ("1 2", "blanks or signs"),
        ("I2", "O for 0"),
    ],
)
def test_patient_ids_that_may_be_one_person_are_told(tmp_path: Path, other: str, how: str) -> None:
    text = f"PatientID,ill,age\n12,0,50\nP2,1,51\n{other},1,52\n"
    read(tmp_path, text, run(BINARY, AGE))
    (said,) = questions_about(tmp_path / "labels.csv", run(BINARY, AGE))
    assert f"PatientIDs differ in {how}" in said
    assert "lines 2 and 4" in said
    private = parse_config(
        run(BINARY, AGE).to_yaml().replace("privacy: none", "privacy: {unit: patient, epsilon: 2}")
    )
    with (tmp_path / "labels.csv").open("ab") as file:
        file.write(b"M\xfcller,1,3\n")
    assert questions_about(tmp_path / "labels.csv", private) == [said]


def test_one_patient_more_changes_no_other_patients_values(tmp_path: Path) -> None:
    """The reading of a cell follows from it and from the header, whatever stands in other rows."""
    first = "PatientID;ill;age;crp\nP1;0;50,5;2,5\nP2;1;51;3.5\n"
    before = values(read(tmp_path, first, run()))
    for more in ("P9;1;1.234;1'000,5\n", "P9;0;;\n", "P9;2;0.5;1,234\n", "P9;J;1,234.5;x\n"):
        after = values(read(tmp_path, first + more, run()))
        assert after[:2] == before


@pytest.mark.parametrize("privacy", ["none", "{unit: patient, epsilon: 2.0, default_patients: 40}"])
def test_index_report_and_the_daemon_stop_with_the_cause(tmp_path: Path, privacy: str) -> None:
    """The admin sees the sentence; the coordinator sees a refusal and no reason of any patient.

    With privacy the coordinator sees nothing of it: it chose the columns, and a refusal would tell.
    """
    site = Site(tmp_path)
    config = site.set_up()
    (site.data / "labels.csv").write_text(coded(("1", "2"), 40), encoding="utf-8")
    chosen = parse_config(
        run(BINARY, AGE).to_yaml().replace("privacy: none", f"privacy: {privacy}")
    ).in_force()
    path = tmp_path / "run.yaml"
    path.write_text(chosen.to_yaml(), encoding="utf-8")
    ended = site.types("index", path)
    assert ended.status == 3
    assert "which of them is the event" in ended.err
    ended = site.types("report", path)
    assert ended.status == 3
    assert "The run cannot train here" in ended.out
    said: list[str] = []
    handler = RequestHandler(site_context(site.home, config), said.append)
    answer = handler.answer(Proposal(run="run", round=0, seed=0, config=chosen))
    if privacy == "none":
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.CONFIGURATION
    else:
        assert isinstance(answer, Standing)
    assert any("which of them is the event" in line for line in said)
