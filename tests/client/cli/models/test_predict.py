"""wardround-site predict and calibrate, as an admin types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from client.dicom.index.index import Index
from client.inference.calibration.trained_on import note_trained
from client.inference.trained_model import open_model
from client.site.pacs_section import PacsConfig
from client.site.results_section import ResultReceivers
from client.site.site_config import load_site_config, write_site_config
from client.site.withdrawals import writing
from tests.client.dicom_files import config_of, image, noise, save, uid, write_labels
from tests.client.fhir_hospital import TOKEN, fhir_hospital
from tests.client.pacs.orthanc import free_port
from tests.client.pacs.receivers.hl7_receiver import ris
from tests.client.small_models import bundled, stirred
from tests.client.terminals import Ended, Site

PATIENTS = 60


def fill(folder: Path, patients: int) -> None:
    rows = []
    for number in range(patients):
        picture = image(noise(20, 24, seed=number), f"P{number}", f"of P{number}")
        save(folder / f"P{number}.dcm", picture)
        rows.append({"PatientID": f"P{number}", "ill": number % 2})
    write_labels(folder, rows)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = config_of(cohort="{images: {size: [16, 16]}, split: {test_fraction: 0.5}}")
    return bundled(tmp_path_factory.mktemp("bundle"), config, stirred(config))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    found = Site(tmp_path_factory.mktemp("site"))
    fill(found.data, PATIENTS)
    found.set_up()
    with Index(found.home.index) as index:
        index.update(found.data)
    return found


def predict(site: Site, study: object, bundle: Path, *options: str) -> Ended:
    return site.types("predict", study, "--bundle", bundle, *options)


def test_a_study_of_the_index_is_scored_written_and_said_in_plain_words(
    site: Site, bundle: Path
) -> None:
    ended = predict(site, uid("P3", "of P3"), bundle)
    assert ended.status == 0, ended.text
    assert "test, from 1 file. For research, not for clinical use." in ended.out
    assert "probability of ill: 0." in ended.out
    assert "not calibrated at this site; type: wardround-site calibrate" in ended.out
    assert "Nothing was sent; --send brings them into the PACS." in ended.out
    (folder,) = site.home.results.iterdir()
    assert str(folder) in ended.out
    kinds = sorted(path.name.rsplit("-", 1)[0] for path in folder.iterdir())
    assert kinds == ["capture", "diagnostic-report", "report"]
    for path in folder.glob("*.dcm"):
        written = dcmread(path)
        assert written.StudyInstanceUID == uid("P3", "of P3")
        assert written.PatientID == "P3"
    assert "P3" not in folder.name
    assert folder.stat().st_mode & 0o077 == 0


def test_a_programs_answer_is_json_and_goes_where_it_was_asked_for(
    site: Site, bundle: Path, tmp_path: Path
) -> None:
    ended = predict(site, site.data / "P4.dcm", bundle, "--json", "--out", str(tmp_path / "out"))
    assert ended.status == 0, ended.text
    answer = json.loads(ended.out)
    (score,) = answer["scores"]
    assert answer["research"] == "for research, not for clinical use"
    assert 0 < score["quantities"][0]["value"] < 1
    assert score["heatmap"]["label"] == "ill"
    assert score["prediction_set"] is None
    assert {Path(p).parent for p in answer["written"]} == {tmp_path / "out"}
    assert all(Path(p).is_file() for p in answer["written"])
    assert (answer["sent"], answer["not_used"]) == ([], [])


def test_a_patient_whom_the_model_was_trained_on_here_is_named_as_such(
    site: Site, bundle: Path, tmp_path: Path
) -> None:
    model = open_model(bundle)
    note_trained(site.home.trained, model.name.fingerprint, model.seed, ["P6"])
    out = ("--out", str(tmp_path / "out"))
    assert "THIS PATIENT WAS TRAINED ON" in predict(site, uid("P6", "of P6"), bundle, *out).out
    assert "THIS PATIENT WAS TRAINED ON" not in predict(site, uid("P7", "of P7"), bundle, *out).out
    told = json.loads(predict(site, uid("P6", "of P6"), bundle, "--json", *out).out)
    assert told["patient_was_trained_on_here"] is True
    shutil.rmtree(site.home.trained)


@pytest.mark.processes
def test_a_report_goes_to_whom_results_names_once_each_though_one_is_away(
    site: Site, bundle: Path, tmp_path: Path
) -> None:
    before = load_site_config(site.home.site_yaml)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    out = ("--send", "--json", "--out", str(tmp_path / "out"))
    study = site.data / "P5.dcm"
    with fhir_hospital() as hospital, ris() as receiver:
        fhir = {"url": hospital.url, "token_file": token}
        away = ResultReceivers.model_validate(
            {"fhir": fhir, "hl7": {"host": "127.0.0.1", "port": free_port()}}
        )
        there = ResultReceivers.model_validate(
            {"fhir": fhir, "hl7": {"host": "127.0.0.1", "port": receiver.port}}
        )
        states = []
        for receivers in (away, there, there):
            changed = before.model_copy(update={"results": receivers})
            write_site_config(site.home.site_yaml, changed)
            assert load_site_config(site.home.site_yaml) == changed
            ended = predict(site, study, bundle, *out)
            states.append((ended.status, [state for _, state, _ in json.loads(ended.out)["sent"]]))
            assert TOKEN not in ended.text
        write_site_config(site.home.site_yaml, before)
        assert states == [
            (7, ["STORED"]),  # the other is away; its error is told
            (0, ["ALREADY_THERE", "TAKEN"]),
            (0, ["ALREADY_THERE", "TAKEN_BEFORE"]),
        ]
        assert (len(hospital.posted), len(receiver.messages)) == (1, 1)


@pytest.mark.processes
def test_a_pacs_that_is_not_there_keeps_nobody_from_reading_the_answer(
    site: Site, bundle: Path, tmp_path: Path
) -> None:
    before = load_site_config(site.home.site_yaml)
    pacs = PacsConfig(route="dicomweb", url=f"http://127.0.0.1:{free_port()}/dicom-web")
    write_site_config(site.home.site_yaml, before.model_copy(update={"pacs": pacs}))
    ended = predict(site, uid("P8", "of P8"), bundle, "--send", "--out", str(tmp_path / "out"))
    write_site_config(site.home.site_yaml, before)
    assert ended.status == 7
    assert "probability of ill: 0." in ended.out
    assert f"Written to {tmp_path / 'out'}: " in ended.out
    assert "is not reached: Connection refused" in ended.text
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_calibrating_changes_what_predict_says(site: Site, bundle: Path) -> None:
    ended = site.types("calibrate", "--bundle", bundle)
    assert ended.status == 0, ended.text
    assert "From 24 patients of the run's test part, none of whom" in ended.out
    assert "ill: " in ended.out
    assert "Nothing of it leaves this site." in ended.out
    (kept,) = site.home.calibration.glob("*.json")
    assert str(kept) in ended.out
    told = predict(site, site.data / "P5.dcm", bundle)
    assert told.status == 0, told.text
    assert "; before calibration 0." in told.out
    assert "possible here at 90%: not ill, ill" in told.out
    assert "NO ANSWER: it may be not ill or ill" in told.out
    assert "of this site's own images are at least as unlike" in told.out
    answered = predict(site, site.data / "P5.dcm", bundle, "--no-abstain")
    assert "NO ANSWER" not in answered.out
    facts = json.loads(site.types("calibrate", "--bundle", bundle, "--json").out)
    assert facts["patients"] == 24
    assert facts["coverage"] == 0.9
    kept.unlink()


def test_a_class_with_too_few_patients_is_named(tmp_path: Path, bundle: Path) -> None:
    site = Site(tmp_path)
    fill(site.data, 60)
    site.set_up()
    ended = site.types("calibrate", "--bundle", bundle, "--coverage", "0.95")
    assert ended.status == 0, ended.text
    assert "patients, expected at least 19, so it is never ruled out" in ended.out


def test_too_few_patients_are_told_and_nothing_is_kept(tmp_path: Path, bundle: Path) -> None:
    site = Site(tmp_path)
    fill(site.data, 30)
    site.set_up()
    ended = site.types("calibrate", "--bundle", bundle)
    assert ended.status == 3
    assert "Only 12 of this site's 30 patients are in the run's test part" in ended.err
    assert "expected at least 20" in ended.err
    assert not site.home.calibration.exists()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["predict", "/nowhere", "--bundle", "BUNDLE"], 3, "no file or folder /nowhere"),
        (["predict", "1.2.3", "--bundle", "BUNDLE"], 3, "is not in the index"),
        (["predict", "DATA", "--bundle", "/nowhere"], 2, "no bundle in /nowhere"),
        (["predict", "DATA", "--bundle", "BUNDLE"], 3, "several studies"),
        (["predict", "DATA/labels.csv", "--bundle", "BUNDLE"], 3, "1 x NOT_DICOM"),
        (["predict", "DATA/P1.dcm", "--bundle", "BUNDLE", "--send"], 2, "names no PACS"),
        (["listen", "--bundle", "BUNDLE", "--worklist"], 2, "give --send with --worklist"),
        (["listen", "--bundle", "BUNDLE", "--worklist", "--folder", "DATA"], 2, "not both"),
        (["predict", "DATA/P1.dcm"], 2, "--bundle"),
        (["calibrate", "--bundle", "/nowhere"], 2, "no bundle in /nowhere"),
        (["calibrate", "--bundle", "BUNDLE", "--coverage", "1.5"], 2, "Expected coverage=1.5"),
        (["calibrate", "--bundle", "BUNDLE", "--unlike", "-1"], 2, "Expected unlike=-1"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(
    words: list[str], status: int, told: str, site: Site, bundle: Path
) -> None:
    places = {"BUNDLE": str(bundle), "DATA": str(site.data)}
    typed = [w.replace("DATA", places["DATA"]).replace("BUNDLE", places["BUNDLE"]) for w in words]
    ended = site.types(*typed)
    assert ended.status == status, ended.text
    assert told in ended.err.replace("\n", " ")
    assert "Traceback" not in ended.text


def test_files_that_cannot_be_used_are_named_and_the_others_scored(
    site: Site, bundle: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    good = save(study / "good.dcm", image(noise(20, 24), "P9", "of P9"))
    (study / "cut.dcm").write_bytes(good.read_bytes()[:-300])
    (study / "empty.dcm").touch()
    ended = predict(site, study, bundle)
    assert ended.status == 0, ended.text
    assert "from 1 file." in ended.out
    assert "Not used: 1 x TRUNCATED_PIXELS, cut.dcm" in ended.out
    assert "Not used: 1 x EMPTY_FILE, empty.dcm" in ended.out


def test_files_that_left_since_they_were_indexed_are_told(tmp_path: Path, bundle: Path) -> None:
    site = Site(tmp_path)
    fill(site.data, 2)
    with Index(site.home.index) as index:
        index.update(site.data)
    (site.data / "P1.dcm").unlink()
    ended = predict(site, uid("P1", "of P1"), bundle)
    assert ended.status == 3
    assert "no longer there" in ended.err
    assert "Type: wardround-site index" in ended.err


def test_a_withdrawn_patients_study_is_refused_and_no_result_written(
    tmp_path: Path, bundle: Path
) -> None:
    site = Site(tmp_path)
    fill(site.data, 2)
    with writing(site.home.withdrawals) as log:
        log.withdraw("P1")
    ended = predict(site, site.data / "P1.dcm", bundle)
    assert ended.status == 3
    assert "was withdrawn at this site" in ended.err
    assert not site.home.results.exists()
    assert predict(site, site.data / "P0.dcm", bundle).status == 0


def test_after_a_withdrawal_the_calibration_is_not_used(tmp_path: Path, bundle: Path) -> None:
    site = Site(tmp_path)
    fill(site.data, 50)
    site.set_up()
    assert site.types("calibrate", "--bundle", bundle).status == 0
    assert "possible here" in predict(site, site.data / "P5.dcm", bundle).out
    with writing(site.home.withdrawals) as log:
        log.withdraw("P7")
    assert "not calibrated at this site" in predict(site, site.data / "P5.dcm", bundle).out
    assert list(site.home.calibration.iterdir()) == []
