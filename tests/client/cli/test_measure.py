"""`wardround-site measure`: a table that runs take, in the site's own folders alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from client.labels.schema import schema_path
from client.site.cache import Cache
from common.config.run_config import RunConfig, parse_config
from common.models.run_network import network_of
from common.tasks import task_of
from tests.client.dicom_files import uid, write_labels
from tests.client.measurement.phantom import MASK, VALUES, put_mask, put_scan, scan
from tests.client.scores import CT, given
from tests.client.terminals import Site

FRACTION = "ejection_fraction: {structures: [a], end_diastole: ed, end_systole: es}"


def nobody(*_arguments: object) -> NoReturn:
    message = "measuring asks nobody"
    raise AssertionError(message)


def plan(folder: Path, text: str = "structures: {lesion: [1]}") -> Path:
    path = folder / "measure.yaml"
    path.write_text(text)
    return path


def measured_site(folder: Path, patients: int = 4) -> Site:
    """Write a site whose lesions are the larger the more its patients are ill."""
    site = Site(folder)
    rows = []
    for number in range(patients):
        patient = f"P{number}"
        drawn, mask = scan(patient), MASK.copy()
        mask[:, number // 2 + 2 :] = False
        put_scan(site.data / patient, drawn)
        put_mask(site.data / f"{patient}.seg.dcm", {1: mask}, drawn)
        rows.append({"PatientID": patient, "mask": f"{patient}.seg.dcm", "ill": number // 2})
    write_labels(site.data, rows)
    return site


def taking() -> RunConfig:
    return parse_config("""
name: sizes
task: {kind: diagnosis, target: ill}
cohort:
  smallest_cohort: 1
  table:
    numbers:
      - {column: lesion_volume_mm3, center: 400, scale: 200}
      - {column: lesion_sphericity, center: 0.7, scale: 0.1}
      - {column: lesion_mean, center: 2, scale: 1}
model: {network: table}
training: {rounds: 1}
privacy: none
""")


def test_a_run_takes_what_was_measured_as_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.cohort.loading import load_cohort

    site = measured_site(tmp_path)
    site.set_up()
    monkeypatch.setattr(socket.socket, "connect", nobody)
    ended = site.types("measure", plan(tmp_path))
    assert ended.status == 0, ended.text
    assert "4 masks of 4 of the table's 4 rows were measured" in ended.out
    table = site.home.measurements / "labels.csv"
    assert f"labels: {table}" in ended.out
    # Nothing is on its way to a coordinator, and nothing is noted as having left.
    assert not site.home.outbox.exists()
    assert not site.home.disclosures.exists()
    for path in site.home.measurements.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    run = taking()
    cohort = load_cohort(site.data, run, task_of(run.task), Cache(tmp_path / "cache"), table)
    assert len(cohort.items) == 4
    assert cohort.unusable == ()
    columns = cohort.items.table[:, :3]
    assert (columns[:2] == columns[0]).all()
    assert (columns[2:, 0] > columns[:2, 0]).all()


def test_a_table_of_its_own_notation_keeps_it(tmp_path: Path) -> None:
    from client.labels.label_table import read_labels

    site = measured_site(tmp_path)
    site.set_up()
    table = site.data / "labels.csv"
    lines = ["PatientID;mask;ill;dose", *(f"P{n};P{n}.seg.dcm;0;1,25{n}" for n in range(4))]
    table.write_text("\n".join(lines))
    schema_path(table).write_text("decimal: comma\n")
    assert site.types("measure", plan(tmp_path)).status == 0
    written = site.home.measurements / "labels.csv"
    numbers = ("dose", "lesion_mean", "lesion_volume_mm3", "lesion_diameter_3d_mm")
    found = read_labels(written, numbers, with_images=False, numbers=numbers)
    assert found.unusable == ()
    assert [row["dose"] for row in found.rows] == ["1.25", "1.251", "1.252", "1.253"]
    assert all(1 < float(row["lesion_mean"]) < 6 for row in found.rows)
    assert all(5 < float(row["lesion_diameter_3d_mm"]) < 14 for row in found.rows)


def test_a_withdrawn_patient_is_measured_no_more_and_forgotten(tmp_path: Path) -> None:
    site = measured_site(tmp_path)
    site.set_up()
    assert site.types("measure", plan(tmp_path)).status == 0
    assert site.types("withdraw", "P1", "--yes").status == 0
    kept = (site.home.measurements / "labels.csv").read_text()
    assert "P1" not in kept
    assert "P2" in kept
    assert not (site.home.measurements / "measurements.html").exists()
    answer = json.loads(site.types("measure", plan(tmp_path), "--json").out)
    assert [row["patient"] for row in answer["measured"]] == ["P0", "P2", "P3"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("structure: {lesion: [1]}", "structures"),
        ("structures: {lesion: []}", "one or more from 0 on"),
        ("structures: {'a b': [1]}", "letters"),
        ("structures: {a: [1]}\nmask: m\nmasks: {ed: m}", "not both"),
        (f"structures: {{a: [1]}}\nmasks: {{ed: m}}\n{FRACTION}", "a name under masks"),
        (f"structures: {{b: [1]}}\nmasks: {{ed: m, es: n}}\n{FRACTION}", "under structures"),
        ("structures: {a: [1]}\nmask: outline", "no column outline"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    site = measured_site(tmp_path, patients=1)
    site.set_up()
    ended = site.types("measure", plan(tmp_path, text))
    assert ended.status in {2, 3}
    assert said in ended.text


def test_a_table_is_not_written_over_and_no_column_twice(tmp_path: Path) -> None:
    site = measured_site(tmp_path, patients=1)
    site.set_up()
    wanted = plan(tmp_path)
    assert (
        "is the table that is measured from"
        in site.types("measure", wanted, "--out", site.data).text
    )
    assert site.types("measure", wanted).status == 0
    nothing = site.types("measure", plan(tmp_path, "structures: {lesion: [9]}"))
    assert nothing.status == 3
    assert "holds segments [1]" in nothing.text
    site.set_up(labels=site.home.measurements / "labels.csv")
    again = site.types("measure", plan(tmp_path), "--out", tmp_path / "again")
    assert again.status == 3
    assert "has a column lesion_" in again.text
    assert "--labels" in site.types("measure", plan(tmp_path)).text
    renewed = site.types("measure", plan(tmp_path), "--labels", site.data / "labels.csv")
    assert renewed.status == 0


def test_hospitals_of_a_simulation_are_measured_as_at_a_site(tmp_path: Path) -> None:
    import wardround
    from simulations.cli.app import app as simulate

    site, wanted = measured_site(tmp_path), plan(tmp_path)
    site.set_up()
    assert site.types("measure", wanted).status == 0
    table = (site.home.measurements / "labels.csv").read_text()
    hospitals, out = tmp_path / "hospitals", tmp_path / "out"
    hospitals.mkdir()
    site.data.rename(hospitals / "images")
    words = ["measure", str(wanted), "--data", str(hospitals), "--out", str(out)]
    ended = CliRunner().invoke(simulate, words)
    assert ended.exit_code == 0, ended.output
    assert (out / "images" / "labels.csv").read_text() == table
    found = wardround.measure(wanted, hospitals)
    written = found.write(tmp_path / "again") / "images" / "labels.csv"
    assert written.read_text() == table
    assert list(found.frame()["lesion_volume_mm3"]) == [
        float(line.split(",")[3]) for line in table.splitlines()[1:]
    ]
    assert set(found.not_measured()["reason"]) == {"MASK_AT_BORDER"}
    # What was written is a folder of hospitals, of which a run takes the columns.
    assert wardround.cohorts(taking(), out).names == ("images",)


@pytest.mark.slow
def test_a_models_outlines_measure_as_its_seg_does(tmp_path: Path) -> None:
    """What `--bundle` puts into the table is what the masks in its own SEGs measure."""
    import wardround
    from tests.client.small_models import bundled

    run = parse_config("""
name: outlines
task: {kind: segmentation, structures: {lesion: [1], cyst: [2]}}
cohort: {images: {size: [16, 16, 16], modalities: [CT]}}
model: {network: unet, width: 8}
training: {rounds: 1}
privacy: none
""")
    bundle = bundled(tmp_path / "bundle", run, network_of(run, 0))
    site = Site(tmp_path)
    large = np.kron(VALUES, np.ones((3, 5, 4), np.float32))
    for patient in ("P0", "P1"):
        planes = scan(patient, large * (1 + int(patient[1])))
        for plane in planes:
            given(plane, CT, "CT")
            plane.PatientID = patient
            plane.FrameOfReferenceUID, plane.SliceThickness = uid("frame of reference"), 2.0
        put_scan(site.data / patient, planes)
    write_labels(site.data, [{"PatientID": one, "ill": 0} for one in ("P0", "P1", "nobody")])
    site.set_up()
    ended = site.types("measure", "--bundle", bundle, "--sr", "--json")
    assert ended.status == 0, ended.text
    answer = json.loads(ended.out)
    predicted = {row["patient"]: row["values"] for row in answer["measured"]}
    assert [(code, what) for code, what, _ in answer["not_measured"]] == [
        ("NO_IMAGE", "patient nobody")
    ]
    elsewhere = wardround.measure(wardround.open_bundle(bundle), site.data)
    for row in elsewhere.frame().to_dict("records"):
        assert predicted[row["patient"]] == {k: row[k] for k in predicted[row["patient"]]}
    rows = []
    for path in site.home.results.glob("segmentation-*.dcm"):
        mask = site.data / path.name
        mask.write_bytes(path.read_bytes())
        rows.append({"PatientID": dcmread(mask).PatientID, "mask": path.name})
    assert len(rows) == 2
    write_labels(site.data, rows)
    ended = site.types("measure", plan(tmp_path, "structures: {lesion: [1], cyst: [2]}"), "--json")
    drawn = {row["patient"]: row["values"] for row in json.loads(ended.out)["measured"]}
    assert drawn == predicted
    assert all(values["lesion_volume_mm3"] > 0 for values in drawn.values())
    refused = site.types("measure", "--bundle", bundle, plan(tmp_path))
    assert refused.status == 2
    assert "a bundle says itself" in refused.text
