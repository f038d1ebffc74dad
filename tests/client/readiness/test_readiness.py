"""The readiness report: right in its numbers, whole as a page, and nothing but local."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from client.cli.app import app
from client.site.home import Home
from tests.client.dicom_files import image, noise, placed, save, write_labels
from tests.client.terminals import same_split
from tests.strict_html import Strict

RUN = """
name: chest
task: {kind: diagnosis, target: ill}
cohort:
  images: {size: [16, 16], modalities: [CT], body_parts: [CHEST]}
  split: {test_fraction: 0.3, validation_fraction: 0.15}
model: {network: small_cnn, width: 4}
training: {rounds: 2}
privacy: none
"""
PATIENTS = 40


@pytest.fixture
def site(tmp_path: Path) -> Home:
    """Return a site with 40 patients: 2 cut off, 1 a hand, 1 a scout, 2 of MR, 5 unlabelled."""
    rows = []
    for number in range(PATIENTS):
        patient = f"P{number:02d}"
        dataset = placed(image(noise(8, 9, seed=number), patient, patient), (0, 0, 0))
        dataset.BodyPartExamined = "HAND" if number == 2 else "CHEST"
        dataset.Manufacturer = "<b>Acme</b>"
        dataset.PatientAge = f"{20 + number:03d}Y"
        if number == 3:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        if number in {4, 5}:
            dataset.Modality = "MR"
        if number == 6:
            dataset.BurnedInAnnotation = "YES"
        path = save(tmp_path / "data" / f"{patient}.dcm", dataset)
        if number < 2:
            path.write_bytes(path.read_bytes()[:-40])
        rows.append({"PatientID": patient, "ill": number % 2})
    write_labels(tmp_path / "data", rows[:-5])
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    home.site_yaml.write_text(f"name: north\ndata: {tmp_path / 'data'}\n", encoding="utf-8")
    same_split(home)
    (tmp_path / "run.yaml").write_text(RUN, encoding="utf-8")
    return home


def typed(home: Home, *words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words, "--home", str(home.folder)])


def facts_of(home: Home) -> dict[str, object]:
    found: dict[str, object] = json.loads((home.report / "report.json").read_bytes())
    return found


def test_every_study_is_used_or_left_out_for_a_reason(site: Home, tmp_path: Path) -> None:
    done = typed(site, str(tmp_path / "run.yaml"))
    assert done.exit_code == 0, done.output
    assert "29 of 40 studies, of 29 of 40 patients, can be used for chest." in done.output
    facts = facts_of(site)
    reasons = facts["reasons"]
    assert isinstance(reasons, list)
    assert {r["code"]: r["studies"] for r in reasons if r["studies"]} == {
        "LABEL_MISSING": 5,
        "TRUNCATED_PIXELS": 2,
        "WRONG_MODALITY": 2,
        "WRONG_BODYPART": 1,
        "LOCALIZER": 1,
    }
    assert facts["ready"] is True
    assert all(row["meaning"] for row in reasons)
    cut = next(row for row in reasons if row["code"] == "TRUNCATED_PIXELS")
    assert [example.partition(":")[0] for example in cut["examples"]] == ["P00.dcm", "P01.dcm"]


def test_without_a_run_it_says_what_can_be_read(site: Home) -> None:
    done = typed(site)
    assert done.exit_code == 0, done.output
    assert "37 of 40 studies, of 37 of 40 patients, can be used." in done.output
    assert "BURNED_IN_SUSPECT" in done.output
    assert facts_of(site)["told"] is None


def test_counts_that_would_leave_are_shown_as_they_would(site: Home, tmp_path: Path) -> None:
    typed(site, str(tmp_path / "run.yaml"))
    told = facts_of(site)["told"]
    assert isinstance(told, dict)
    assert told["tables"]["studies"]["rows"] == {"found": 40.0, "used": 29.0, "left out": 11.0}
    # 2 + 2 + 1 + 1 patients are 5 and more together, so the 5 without a label can be told.
    assert told["tables"]["left out"]["rows"]["LABEL_MISSING"] == 5.0
    assert told["tables"]["left out"]["rows"]["LOCALIZER"] is None


def test_the_page_is_whole_and_runs_nothing_of_what_is_in_it(site: Home, tmp_path: Path) -> None:
    typed(site, str(tmp_path / "run.yaml"))
    page = (site.report / "report.html").read_text(encoding="utf-8")
    strict = Strict()
    strict.feed(page)
    assert strict.open == []
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "&lt;b&gt;Acme&lt;/b&gt;" in page
    assert "<b>Acme" not in page
    assert "It was made for the people of this hospital and is not sent anywhere." in page
    assert oct((site.report / "report.html").stat().st_mode)[-3:] == "600"


def test_a_run_that_cannot_train_here_is_exit_3_after_the_report(
    site: Home, tmp_path: Path
) -> None:
    (tmp_path / "us.yaml").write_text(RUN.replace("[CT]", "[US]"), encoding="utf-8")
    done = typed(site, str(tmp_path / "us.yaml"))
    assert done.exit_code == 3
    assert "0 of 40 studies" in done.output
    assert "most of them as wrong modality. The run cannot train here." in done.output
    assert "the run asks for US" in done.output
    (tmp_path / "data" / "labels.csv").unlink()
    assert typed(site, str(tmp_path / "run.yaml")).exit_code == 3
    assert "There is no" in str(facts_of(site)["stopped_by"])
    assert typed(site).exit_code == 0


def test_needs_that_are_not_met_are_said_with_their_remedy(site: Home, tmp_path: Path) -> None:
    config = RUN.replace("cohort:\n", "cohort:\n  smallest_cohort: 30\n")
    (tmp_path / "large.yaml").write_text(config, encoding="utf-8")
    done = typed(site, str(tmp_path / "large.yaml"), "--out", str(tmp_path / "out"))
    assert "What the run needs and is not here: training patients." in done.output
    assert "Fewer patients than the run needs (cohort.smallest_cohort)." in done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.json"}


def test_a_run_on_a_table_alone_is_told_in_patients(site: Home, tmp_path: Path) -> None:
    rows = [{"PatientID": f"T{n}", "ill": n % 2, "age": 40 + n} for n in range(30)]
    write_labels(tmp_path / "data", [*rows, {"PatientID": "T30", "ill": "?", "age": 1}])
    config = RUN.replace(
        "images: {size: [16, 16], modalities: [CT], body_parts: [CHEST]}",
        ("table: {numbers: [{column: age}]}"),
    ).replace("small_cnn, width: 4", "table")
    (tmp_path / "table.yaml").write_text(config, encoding="utf-8")
    done = typed(site, str(tmp_path / "table.yaml"))
    assert done.exit_code == 0, done.output
    assert "30 of 31 patients can be used for chest." in done.output
    assert "LABEL_UNUSABLE" in done.output
    assert "<b>30</b>patients" in (site.report / "report.html").read_text(encoding="utf-8")


def test_ranges_of_clinical_values_show_what_no_patient_has(site: Home, tmp_path: Path) -> None:
    ages = ["430", "-9", "", "unknown", *range(40, 66)]
    rows = [{"PatientID": f"T{n}", "ill": n % 2, "age": age} for n, age in enumerate(ages)]
    write_labels(tmp_path / "data", rows)
    config = RUN.replace(
        "images: {size: [16, 16], modalities: [CT], body_parts: [CHEST]}",
        ("table: {numbers: [{column: age, unit: years}]}"),
    ).replace("small_cnn, width: 4", "table")
    (tmp_path / "table.yaml").write_text(config, encoding="utf-8")
    assert typed(site, str(tmp_path / "table.yaml")).exit_code == 0
    assert facts_of(site)["columns"] == [
        {
            "column": "age",
            "unit": "years",
            "values": 28,
            "missing": 2,
            "lowest": -9,
            "median": 52.5,
            "highest": 430,
        }
    ]
    page = (site.report / "report.html").read_text(encoding="utf-8")
    assert '<td>age</td><td>years</td><td class="n">-9</td><td class="n">52.5</td>' in page


def test_rows_that_found_no_image_are_explained(site: Home, tmp_path: Path) -> None:
    names = [f"P{n:02d}" if n > 8 else f"p{n:02d}" for n in range(PATIENTS)]
    rows = [{"PatientID": name, "ill": n % 2} for n, name in enumerate(names)]
    write_labels(tmp_path / "data", rows)
    assert typed(site, str(tmp_path / "run.yaml")).exit_code == 0
    (cause,) = facts_of(site)["unmatched"]  # type: ignore[misc]  # JSON
    assert cause.startswith("upper and lower case")
    page = (site.report / "report.html").read_text(encoding="utf-8")
    assert "Likely causes of what found nothing: upper and lower case" in page


def test_a_site_that_tells_nothing_reads_so(site: Home, tmp_path: Path) -> None:
    text = site.site_yaml.read_text(encoding="utf-8")
    site.site_yaml.write_text(f"{text}policy: {{statistics: false}}\n", encoding="utf-8")
    typed(site, str(tmp_path / "run.yaml"))
    assert "Nothing of this is told to the coordinator" in str(facts_of(site)["telling"])


def test_speed_is_measured_and_room_is_compared(site: Home) -> None:
    for _ in range(2):  # all files are new; then none is
        assert typed(site).exit_code == 0
        speed = facts_of(site)["speed"]
        assert isinstance(speed, dict)
        assert speed["files"] in {37, 38, 40}
        assert speed["files_per_second"] > 10
        assert speed["cache_needed"] == 38 * 8 * 9 * 2
        assert speed["disk_free"] > np.prod([8, 9])


def test_the_page_shows_what_the_network_sees_and_the_facts_hold_no_picture(
    site: Home, tmp_path: Path
) -> None:
    assert typed(site, str(tmp_path / "run.yaml")).exit_code == 0
    page = (site.report / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(shown) == 6
    with Image.open(BytesIO(base64.b64decode(shown[0]))) as picture:
        assert picture.size == (192, 192)  # 16 x 16, twelve times
        assert len(np.unique(np.asarray(picture))) > 50
    assert "16 x 16, one channel" in page
    assert "data:image" not in (site.report / "report.json").read_text(encoding="utf-8")
    assert typed(site).exit_code == 0  # without a run nothing is prepared
    assert "data:image" not in (site.report / "report.html").read_text(encoding="utf-8")


def test_init_makes_the_folder_for_images_and_none_above_it(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def init(data: Path) -> Result:
        words = ["init", "north", "--data", str(data), "--home", str(home)]
        return CliRunner().invoke(app, words)

    assert init(tmp_path / "no" / "share").exit_code != 0
    assert not home.exists()
    said = init(tmp_path / "images")
    assert said.exit_code == 0, said.output
    assert "which is empty" in said.output
    assert (tmp_path / "images").is_dir()
