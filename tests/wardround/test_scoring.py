from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import wardround as wr
from client.inference.trained_model import TrainedModel


@pytest.fixture(scope="module")
def trained(run: wr.RunConfig, sites: wr.Cohorts) -> wr.Trained:
    return wr.train(run, sites, progress=False)


@pytest.fixture(scope="module")
def bundle(trained: wr.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def model(bundle: Path) -> TrainedModel:
    return wr.open_bundle(bundle)


def north(sites: wr.Cohorts) -> Path:
    return next(sites.folder.glob("hospitals/*/north"))


def test_a_bundle_measures_as_the_comparison_that_made_it(
    trained: wr.Trained, bundle: Path, sites: wr.Cohorts
) -> None:
    found = wr.evaluate(bundle, sites)
    frame = found.frame()
    ours = frame[frame.metric == found.metric].set_index("site").value
    theirs = trained.frame().set_index("site").value
    assert ours.to_dict() == pytest.approx(theirs.to_dict(), nan_ok=True)
    assert list(found.scores) == list(sites.names)
    assert "test part" in repr(found)
    assert "test part" in found._repr_html_()


def test_no_mean_over_patients_stands_where_the_headline_is_one_over_sites(
    model: TrainedModel, sites: wr.Cohorts
) -> None:
    by_site = replace(model, config=wr.load(model.config, {"evaluation.average": "sites"}))
    assert set(wr.evaluate(by_site, sites).metrics) == set(sites.names)
    assert set(wr.evaluate(model, sites).metrics) == {*sites.names, "all"}


def test_all_of_a_hospital_is_measured_from_its_folder(
    model: TrainedModel, sites: wr.Cohorts
) -> None:
    found = wr.evaluate(model, sites["north"], part="all")
    assert list(found.metrics) == ["north"]
    assert len(found.scores["north"].loss) == len(sites["north"].hospitals.cohorts[0].items)


def test_a_folder_is_read_as_the_bundles_run_reads(
    model: TrainedModel, sites: wr.Cohorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # its cache goes to runs/NAME below
    found = wr.evaluate(model, north(sites), part="all", progress=False)
    expected = wr.evaluate(model, sites["north"], part="all")
    assert found.frame().equals(expected.frame())
    assert (tmp_path / "runs" / "small").is_dir()


def test_what_a_model_cannot_be_measured_on_is_refused(
    model: TrainedModel, run: wr.RunConfig, sites: wr.Cohorts, tmp_path: Path
) -> None:
    federation = replace(model, simulated=False)
    with pytest.raises(wr.ConfigurationError, match="only they know whom"):
        wr.evaluate(federation, sites)
    assert wr.evaluate(federation, sites["east"], part="all").part == "all"
    with pytest.raises(wr.ConfigurationError, match="expected test or all"):
        wr.evaluate(model, sites, part="train")  # type: ignore[arg-type]
    other = wr.load(run, {"task.target": "large"})
    elsewhere = wr.cohorts(other, north(sites), folder=tmp_path, progress=False)
    with pytest.raises(wr.ConfigurationError, match="reads otherwise"):
        wr.evaluate(model, elsewhere)


def test_a_folder_that_is_no_bundle_is_said(sites: wr.Cohorts, tmp_path: Path) -> None:
    with pytest.raises(wr.ConfigurationError, match="There is no bundle"):
        wr.open_bundle(tmp_path)
    with pytest.raises(wr.ConfigurationError, match="There is no bundle"):
        wr.evaluate(tmp_path, sites)
    file = min(north(sites).glob("*.dcm"))
    with pytest.raises(wr.ConfigurationError, match="There is no bundle"):
        wr.predict(file, tmp_path)


def test_a_study_is_scored_as_a_folder_a_file_and_files(
    model: TrainedModel, sites: wr.Cohorts, tmp_path: Path
) -> None:
    file = min(north(sites).glob("*.dcm"))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "one.dcm").write_bytes(file.read_bytes())
    labels = north(sites) / "labels.csv"
    asked: tuple[Path | str | list[Path], ...] = (file, str(tmp_path / "study"), [file])
    answers = [wr.predict(study, model, labels=labels, explain=False) for study in asked]
    values = {answer.frame().value[0] for answer in answers}
    assert len(values) == 1
    assert 0 < values.pop() < 1
    assert "not for clinical use" in repr(answers[0])
    assert "probability of malignant" in answers[0]._repr_html_()
    assert answers[0].scores[0].heatmap is None


def test_what_cannot_be_scored_says_why(
    model: TrainedModel, sites: wr.Cohorts, tmp_path: Path
) -> None:
    with pytest.raises(wr.CohortError, match="no file or folder"):
        wr.predict(tmp_path / "nothing", model)
    with pytest.raises(wr.ConfigurationError, match=r"takes clinical columns\. Give the table"):
        wr.predict(next(north(sites).glob("*.dcm")), model)
    with pytest.raises(wr.CohortError, match="several studies"):
        wr.predict(north(sites), model, labels=north(sites) / "labels.csv")
