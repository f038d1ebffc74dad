"""Mistakes of a user: an exit status, and a message with the file, the value, the remedy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.dicom_files import write_labels
from tests.end_to_end.command import Ran, compare
from tests.end_to_end.hospitals import hospital, images_only

CONFIG = """
name: bad-input
task: {kind: diagnosis, target: ill}
cohort:
  images: {size: [16, 16], modalities: [DX]}
  split: {test_fraction: 0.3, validation_fraction: 0.15}
  smallest_cohort: 4
model: {network: small_cnn, width: 4}
training: {rounds: 1, local_steps: 1, batch_patients: 4}
evaluation: {bootstrap: 5}
privacy: none
"""
PRIVATE = CONFIG.replace("batch_patients: 4", "batch_patients: all").replace(
    "privacy: none",
    "privacy: {unit: patient, epsilon: 3.0, default_patients: 8, delta: 0.001, "
    "clipping: automatic, clip_norm: 1.0}",
)
GIVEN = CONFIG.replace("test_fraction: 0.3", "column: part")


def run(data: Path, config: str = CONFIG, out: Path | None = None) -> Ran:
    """Run the quickest arm that ends in a report."""
    return compare(config, data, "--arms", "federated", out=out)


def labels(site: Path, text: str, encoding: str = "utf-8") -> None:
    (site / "labels.csv").write_bytes(text.encode(encoding))


# --- nothing can be used -------------------------------------------------------------------


def no_folder(data: Path) -> None:
    data.rmdir()


def a_file(data: Path) -> None:
    data.rmdir()
    data.write_text("no folder")


def no_hospital(data: Path) -> None:
    (data / "north").mkdir()


def the_hospital_itself(data: Path) -> None:
    hospital(data, 4)


def other_column(data: Path) -> None:
    write_labels(data / "a", [{"PatientID": "001", "malignant": 1}])


def other_case(data: Path) -> None:
    write_labels(data / "a", [{"patientid": "001", "ill": 1}])


def latin_letters(data: Path) -> None:
    (data / "a").mkdir()
    labels(data / "a", "PatientID,ill,Ärztin\n001,1,Müller\n", "latin-1")


def empty_table(data: Path) -> None:
    (data / "a").mkdir()
    labels(data / "a", "")


def a_folder_for_a_table(data: Path) -> None:
    (data / "a" / "labels.csv").mkdir(parents=True)
    hospital(data / "b", 4)
    (data / "b" / "labels.csv").unlink()


def odd_outcome(data: Path) -> None:
    rows = images_only(data / "a", 6)
    write_labels(data / "a", [{**row, "ill": "perhaps"} for row in rows])


def lost_zeros(data: Path) -> None:
    rows = images_only(data / "a", 6)
    write_labels(data / "a", [{**row, "PatientID": int(str(row["PatientID"]))} for row in rows])


def other_modality(data: Path) -> None:
    hospital(data / "a", 4)
    text = (data / "a" / "labels.csv").read_text()
    for path in (data / "a").glob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(b"CS\x02\x00DX", b"CS\x02\x00MR"))
    labels(data / "a", text)


def nobody_to_test(data: Path) -> None:
    for name in ("a", "b"):
        rows = images_only(data / name, 8)
        write_labels(data / name, [{**row, "part": "train"} for row in rows])


@pytest.mark.parametrize(
    ("write", "config", "said"),
    [
        (no_folder, CONFIG, "There is no folder {data}. Give --data a folder"),
        (a_file, CONFIG, "{data} is a file, expected a folder"),
        (no_hospital, CONFIG, "No hospital in {data}: none of its 1 folders holds a labels.csv"),
        (the_hospital_itself, CONFIG, "{data} itself holds one: give its parent"),
        (other_column, CONFIG, "{data}/a/labels.csv has no column ill."),
        (other_case, CONFIG, "Did you mean patientid?"),
        (latin_letters, CONFIG, "Cannot read {data}/a/labels.csv: "),
        (empty_table, CONFIG, "{data}/a/labels.csv is empty. Its first line names the columns"),
        (a_folder_for_a_table, CONFIG, "none of its 2 folders holds a labels.csv"),
        (odd_outcome, CONFIG, "line 2: column ill holds 'perhaps', expected 0 or 1"),
        (lost_zeros, CONFIG, "Compare the identifiers, zeros in front among them"),
        (other_modality, CONFIG, "4 x WRONG_MODALITY (The run uses other modalities"),
        (nobody_to_test, GIVEN, "No hospital has test patients with seed 0, expected at least 1"),
    ],
)
def test_data_that_cannot_be_used_is_exit_3_and_says_what_is_wrong_where(
    write: Callable[[Path], None], config: str, said: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data)
    ran = run(data, config)
    assert ran.status == 3, ran.text
    assert said.format(data=data) in ran.text
    assert "Traceback" not in ran.text
    assert not (ran.folder / "results.json").exists()


# --- some can be used ----------------------------------------------------------------------


def test_whatever_a_spreadsheet_writes_is_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = {name: images_only(data / name, 10) for name in ("Köln [Süd] 1", "b", "c", "d")}
    pairs = {name: [(r["PatientID"], r["ill"]) for r in found] for name, found in rows.items()}
    excel = "".join(f"{p};{i};01.02.2024\r\n" for p, i in pairs["Köln [Süd] 1"])
    labels(data / "Köln [Süd] 1", f"\ufeffPatientID;ill;Datum\r\n{excel};;\r\n")
    labels(data / "b", '"PatientID" , "ill"\n' + "".join(f'"{p}" , "{i}"\n' for p, i in pairs["b"]))
    labels(data / "c", "PatientID\till\n" + "".join(f"{p}\t{i}.0\n" for p, i in pairs["c"]))
    labels(data / "d", "ill,PatientID,\r" + "".join(f"{i},{p},\r" for p, i in pairs["d"]))
    ran = run(data)
    assert ran.status == 0, ran.text
    assert ran.counted() == dict.fromkeys(sorted(rows), (10, 10))
    assert not ran.not_used()
    assert "Köln [Süd] 1" in (ran.folder / "report.html").read_text("utf-8")
    assert "Köln [Süd] 1: 10 patients, 10 images" in ran.text


def test_what_is_broken_is_left_out_and_listed_and_the_rest_is_used(tmp_path: Path) -> None:
    data = tmp_path / "data"
    rows = images_only(data / "a", 12)
    rows[3]["ill"] = "maybe"
    rows[4]["ill"] = ""
    rows += [{**rows[0], "ill": 1}, {"PatientID": "ghost", "ill": 1}, rows[1]]
    write_labels(data / "a", rows)
    whole = (data / "a" / "005.dcm").read_bytes()
    (data / "a" / "005.dcm").write_bytes(whole[: len(whole) // 2])
    (data / "a" / "006.dcm").write_bytes(b"")
    (data / "a" / "Thumbs.db").write_bytes(b"no image at all" * 20)
    hospital(data / "b", 2)
    (data / "c").mkdir()
    ran = run(data)
    assert ran.status == 0, ran.text
    assert ran.counted() == {"a": (7, 7), "b": (2, 2)}
    assert ran.not_used() == {
        "EMPTY_FILE": 1,
        "LABEL_CONFLICT": 2,
        "LABEL_UNUSABLE": 2,
        "NOT_DICOM": 1,
        "NO_IMAGE": 2,
        "TRUNCATED_PIXELS": 1,
    }
    assert list(ran.results["left_out"]) == ["c"]
    with (ran.folder / "not-used.csv").open(encoding="utf-8", newline="") as file:
        listed = {(r["hospital"], r["what"]): r["detail"] for r in csv.DictReader(file)}
    assert listed["a", "line 5"] == "column ill holds 'maybe', expected 0 or 1"
    assert listed["a", "005.dcm"].endswith(f"of {40 * 32 * 2} bytes")
    assert str(ran.folder / "not-used.csv") in ran.text
    assert "c is left out: There is no " in ran.text


def test_a_hospital_all_of_whose_patients_train_ends_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, parts in (("a", ["train"] * 8 + ["test"] * 6), ("b", ["train"] * 8), ("c", ["test"])):
        rows = images_only(data / name, len(parts))
        given = [{**row, "part": part} for row, part in zip(rows, parts, strict=True)]
        write_labels(data / name, given)
    ran = compare(GIVEN, data)
    assert ran.status == 0, ran.text
    assert "b has no test patients with seed 0" in ran.text
    assert "c has no training patients with seed 0" in ran.text
    for arm in ran.results["arms"].values():
        assert arm["per_site"]["b"] is None
        assert arm["per_site"]["a"] is not None
    assert "nan" not in ran.text


def test_a_hospital_where_nobody_can_be_used_is_left_out_with_privacy_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    hospital(data / "a", 12)
    hospital(data / "b", 12)
    write_labels(data / "c", [{**row, "ill": ""} for row in images_only(data / "c", 6)])
    ran = compare(PRIVATE, data, "--arms", "federated_dp")
    assert ran.status == 0, ran.text
    assert list(ran.results["left_out"]) == ["c"]
    assert "c is left out: Nobody in " in ran.text
    assert "6 x LABEL_UNUSABLE" in ran.text


# --- where results go ----------------------------------------------------------------------


def test_a_file_where_results_should_go_is_named(tmp_path: Path) -> None:
    hospital(tmp_path / "data" / "a", 12)
    (tmp_path / "taken").write_text("here first")
    ran = run(tmp_path / "data", out=tmp_path / "taken")
    assert ran.status == 1
    assert str(tmp_path / "taken") in ran.text
    assert (tmp_path / "taken").read_text() == "here first"


def test_results_of_another_comparison_do_not_outlive_its_configuration(tmp_path: Path) -> None:
    hospital(tmp_path / "data" / "a", 12)
    hospital(tmp_path / "data" / "b", 12)
    assert run(tmp_path / "data").status == 0
    ran = run(tmp_path / "data", CONFIG.replace("[DX]", "[CT]"))
    assert ran.status == 3
    assert not (ran.folder / "results.json").exists()
    assert not (ran.folder / "report.html").exists()
    again = run(tmp_path / "data", CONFIG.replace("[DX]", "[]"))
    assert again.counted() == {"a": (12, 12), "b": (12, 12)}
