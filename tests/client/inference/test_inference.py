"""A study is scored as it would have been measured, and what is not for the model is listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.dicom.reasons import Reason, Unusable
from client.inference import fit_calibration
from client.inference.calibration.site_calibration import SiteCalibration
from client.inference.fit_calibration import FEWEST_PATIENTS, CalibrationOptions, fit
from client.inference.trained_model import Local, TrainedModel, open_model, score_study
from client.labels.label_table import read_labels
from client.results.score import Score
from client.results.writing import write_results
from client.training.evaluation import score
from client.training.local_model import open_local_model
from common.config.run_config import RunConfig
from common.data.sample import take
from common.data.weights import load_weights, save_weights
from common.platform.errors import CohortError, ConfigurationError, StateDamaged
from tests.client.dicom_files import (
    config_of,
    image,
    load,
    noise,
    save,
    segmentation,
    slices,
    write_labels,
)
from tests.client.small_models import bundled, model_of, stirred

SEVERAL = 3  # images of the first patient's study
TABLE = "table: {numbers: [{column: age, center: 60, scale: 10}]}"


def site(folder: Path, patients: int = 4) -> Path:
    """Write patients with one image each, and the first with several in one study."""
    rows = []
    for number in range(patients):
        patient = f"P{number}"
        for k in range(SEVERAL if number == 0 else 1):
            picture = image(
                noise(20, 24, seed=10 * number + k), patient, f"of {patient}", f"series {k}", k
            )
            save(folder / patient / f"{k}.dcm", picture)
        rows.append({"PatientID": patient, "ill": number % 2, "age": 50 + number, "mask": ""})
    write_labels(folder, rows)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def model_for(config: RunConfig) -> TrainedModel:
    return model_of(config, stirred(config))


def measured(folder: Path, config: RunConfig, model: TrainedModel, cache: Path) -> Tensor:
    """Return what the evaluation of a run says of every patient or image, (rows, labels)."""
    local_model = open_local_model(config, 0)
    own = dict(model.deployed.network.named_parameters())
    local_model.load({name: own[name] for name in local_model.trained})
    return score(local_model, load(folder, config, cache).items).prediction


def values(scores: Sequence[object]) -> list[float]:
    return [q.raw for s in scores for q in s.quantities]  # type: ignore[attr-defined]


# --- as it was measured --------------------------------------------------------------------


@pytest.mark.parametrize("cohort", ["", f", {TABLE}"])
def test_a_study_gets_the_score_that_its_patient_got_when_the_model_was_measured(
    cohort: str, tmp_path: Path
) -> None:
    """Where a patient's images are scored together: the mean of outputs, then each by itself."""
    folder = site(tmp_path / "site")
    config = config_of(cohort=f"{{images: {{size: [16, 16]}}{cohort}}}")
    model = model_for(config)
    expected = measured(folder, config, model, tmp_path / "cache")
    labels = read_labels(folder / "labels.csv", ["age"], with_images=True) if cohort else None
    for number in range(4):
        found = score_study(files(folder / f"P{number}"), model, Local(labels=labels))
        assert len(found) == (SEVERAL, 1)[number > 0], "one a series"
        for one in found:
            first = one.quantities[0]
            assert first.raw == pytest.approx(float(expected[number, 0]), abs=1e-6)
            assert (first.value, first.low) == (first.raw, None)
            assert len(one.sources) == 1
            assert (one.prediction_set, one.coverage, one.unlike_training) == (None, None, None)
    several = score_study(files(folder / "P0"), model, Local(labels=labels))
    alone = [score_study(s.sources, model, Local(labels=labels))[0] for s in several]
    own = [s.quantities[1].raw for s in several]
    assert own == pytest.approx([s.quantities[0].raw for s in alone])
    assert [q.meaning for q in several[1].quantities] == [
        "probability of ill, 3 images of the study together",
        "probability of ill, image 1 of 1 alone",
    ]
    outputs = [np.log(p / (1 - p)) for p in own]
    together = 1 / (1 + np.exp(-np.mean(outputs)))
    assert several[0].quantities[0].raw == pytest.approx(together, abs=1e-6)


@pytest.mark.parametrize(
    ("pool", "cohort"), [("attention", f", {TABLE}"), ("max", ""), ("mean", "")]
)
def test_a_network_that_pools_answers_once_of_all_images(
    pool: str, cohort: str, tmp_path: Path
) -> None:
    folder = site(tmp_path / "site")
    config = config_of(cohort=f"{{images: {{size: [16, 16]}}{cohort}}}")
    model = config.model.model_copy(update={"pool": pool})
    config = config.model_copy(update={"model": model})
    opened = model_for(config)
    expected = measured(folder, config, opened, tmp_path / "cache")
    labels = read_labels(folder / "labels.csv", ["age"], with_images=True) if cohort else None
    found = [score_study(files(folder / f"P{n}"), opened, Local(labels=labels)) for n in range(4)]
    for number, scores in enumerate(found):
        for one in scores:
            assert one.quantities[0].raw == pytest.approx(float(expected[number, 0]), abs=1e-6)
    assert found[0][0].quantities[1].meaning.endswith("image 1 of 1 alone")
    assert found[0][0].heatmap is not None
    if cohort:
        row = found[0][0].attributions
        assert [a.column for a in row] == ["age"]
        assert row == found[0][1].attributions, "the study is explained as one"


def test_a_calibration_of_a_network_that_pools_is_by_bag(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    config = config_of()
    model = config.model.model_copy(update={"pool": "attention"})
    config = config.model_copy(update={"model": model})
    opened = model_for(config)
    cohort = load(folder, config, tmp_path / "cache")
    outputs = fit_calibration._outputs(
        opened, take(cohort.items, torch.arange(len(cohort.items.patient)))
    )
    expected = measured(folder, config, opened, tmp_path / "cache")
    torch.testing.assert_close(outputs.sigmoid(), expected, rtol=1e-5, atol=1e-6)


def test_images_of_one_series_share_a_score_that_can_be_written(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.dcm", image(noise(20, 24, seed=number), number=number))
    (found,) = score_study(files(tmp_path), model_for(config_of()))
    assert len(found.sources) == 3
    assert [q.meaning.rpartition(", ")[2] for q in found.quantities] == [
        "3 images of the study together",
        "image 1 of 3 alone",
        "image 2 of 3 alone",
        "image 3 of 3 alone",
    ]
    assert {r.kind.value for r in write_results(found, tmp_path / "out")} >= {"report"}


def test_results_of_every_series_of_a_study_can_be_written(tmp_path: Path) -> None:
    folder = site(tmp_path / "site") / "P0"
    for found in score_study(files(folder), model_for(config_of())):
        assert len(write_results(found, tmp_path / "out")) == 3
    assert len(list((tmp_path / "out").iterdir())) == 3 * SEVERAL


def test_where_images_were_measured_by_themselves_each_has_its_score(tmp_path: Path) -> None:
    folder, config = site(tmp_path / "site"), config_of()
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"unit": "image"})}
    )
    model = model_for(config)
    expected = measured(folder, config, model, tmp_path / "cache")[:SEVERAL, 0]
    found = score_study(files(folder / "P0"), model)
    assert len(found) == SEVERAL
    assert sorted(values(found)) == pytest.approx(sorted(expected.tolist()), abs=1e-6)
    assert len({s.sources for s in found}) == SEVERAL


def test_a_model_of_clinical_columns_alone_scores_the_studys_patient(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    config = config_of(cohort=f"{{{TABLE}}}", network="table")
    model = model_for(config)
    expected = measured(folder, config, model, tmp_path / "cache")
    labels = read_labels(folder / "labels.csv", ["age"], with_images=False)
    (found,) = score_study(files(folder / "P2"), model, Local(labels=labels))
    assert found.quantities[0].raw == pytest.approx(float(expected[2, 0]), abs=1e-6)
    assert [p.name for p in found.sources] == ["0.dcm"]
    assert [a.column for a in found.attributions] == ["age"]
    assert found.heatmap is None


def test_survival_is_a_probability_for_each_time(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    task = "{kind: prognosis, event: ill, time: age, unit: months, intervals: [6, 12]}"
    model = model_for(config_of(task=task))
    (found,) = score_study(files(folder / "P1"), model)
    assert [q.label for q in found.quantities] == ["6 months", "12 months"]
    assert found.quantities[0].meaning == "probability of no event until 6 months"
    assert 1 > found.quantities[0].value > found.quantities[1].value > 0
    assert found.heatmap is not None
    assert found.heatmap.label == "risk of ill"
    assert found.kind == "prognosis"


class Threshold(nn.Module):
    """Outlines what is bright."""

    def forward(self, picture: Tensor, table: Tensor) -> Tensor:
        del table
        bright = 40 * (picture[:, :1] - 0.5)
        return torch.cat([-bright, bright], dim=1)


def test_outlines_of_a_series_lie_on_its_own_pixels(tmp_path: Path) -> None:
    """Through the whole of `score_study`, files in no order, a broken one of another series."""
    volume = noise(16, 16, 16, top=2) * 100
    for number, one in enumerate(slices(volume)):
        save(tmp_path / f"{(7 * number) % 16:02}.dcm", one)
    save(tmp_path / "other" / "0.dcm", slices(noise(2, 16, 16), series="scout")[0])
    config = config_of(
        task="{kind: segmentation, structures: {lesion: [1]}}",
        cohort="{images: {size: [16, 16, 16], intensity: window, window: [0, 100]}}",
        network="unet",
    )
    listed: list[Unusable] = []
    (found,) = score_study(files(tmp_path), model_of(config, Threshold()), tell=listed.append)
    assert found.outlines is not None
    assert np.array_equal(found.outlines.labels, volume > 0)
    assert found.outlines.structures == ("lesion",)
    assert (found.quantities, found.heatmap, found.attributions) == ((), None, ())
    assert [p.reason for p in listed] == [Reason.TOO_FEW_SLICES]


def test_frames_of_a_2d_file_are_outlined_together(tmp_path: Path) -> None:
    frames = (noise(3, 16, 16, top=2) * 100).astype(np.uint8)
    config = config_of(
        task="{kind: segmentation}",
        cohort="{images: {size: [16, 16], intensity: window, window: [0, 100]}}",
        network="unet",
    )
    file = save(tmp_path / "cine.dcm", image(frames))
    (found,) = score_study([file], model_of(config, Threshold()))
    assert found.outlines is not None
    assert np.array_equal(found.outlines.labels, frames > 0)


# --- what is not for the model -------------------------------------------------------------


def test_whatever_is_not_for_the_model_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = site(tmp_path / "site") / "P0"
    config = config_of(cohort="{images: {size: [16, 16], modalities: [OT]}}")
    other = image(noise(20, 24), "P0", "of P0", "series 9", 9)
    other.Modality = "CR"
    save(folder / "chest.dcm", other)
    (folder / "empty.dcm").touch()
    broken = files(folder)[0].read_bytes()
    (folder / "cut.dcm").write_bytes(broken[: len(broken) // 2])
    (folder / "text.dcm").write_text("no DICOM")
    save(folder / "seg.dcm", segmentation({1: np.ones((1, 20, 24), np.uint8)}, [other]))
    listed: list[Unusable] = []
    found = score_study(files(folder), model_for(config), tell=listed.append)
    assert len(found) == SEVERAL
    assert {p.what: p.reason for p in listed} == {
        "chest.dcm": Reason.WRONG_MODALITY,
        "empty.dcm": Reason.EMPTY_FILE,
        "cut.dcm": Reason.TRUNCATED_PIXELS,
        "text.dcm": Reason.NOT_DICOM,
        "seg.dcm": Reason.SEGMENTATION,
    }


def test_what_a_model_said_before_is_not_scored_again(tmp_path: Path) -> None:
    folder = site(tmp_path / "site") / "P1"
    model = model_for(config_of())
    (first,) = score_study(files(folder), model)
    written = [r.path for r in write_results(first, folder / "results") if r.sop_class]
    assert len(written) == 2, "a report and a picture of the heatmap"
    listed: list[Unusable] = []
    (again,) = score_study(files(folder), model, tell=listed.append)
    assert again.sources == first.sources
    assert again.quantities == first.quantities
    told = {p.reason: p.detail for p in listed}
    assert told == {Reason.DERIVED: "our result", Reason.NO_PIXELS: ""}


def test_a_study_of_which_nothing_can_be_scored_is_refused_with_the_reasons(tmp_path: Path) -> None:
    folder = site(tmp_path / "site") / "P1"
    config = config_of(cohort="{images: {size: [16, 16], modalities: [MR]}}")
    with pytest.raises(CohortError, match=r"takes 2-D images of MR\. 1 x WRONG_MODALITY"):
        score_study(files(folder), model_for(config))


def test_a_withdrawn_patient_is_not_scored(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    local = Local(withdrawn=frozenset({"P1"}))
    with pytest.raises(CohortError, match="was withdrawn at this site"):
        score_study(files(folder / "P1"), model_for(config_of()), local)
    assert score_study(files(folder / "P2"), model_for(config_of()), local)


def test_a_patient_without_a_row_is_said_and_not_guessed(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    config = config_of(cohort=f"{{images: {{size: [16, 16]}}, {TABLE}}}")
    model = model_for(config)
    labels = read_labels(folder / "labels.csv", ["age"], with_images=True)
    unknown = save(tmp_path / "new.dcm", image(noise(20, 24), "P99"))
    with pytest.raises(CohortError, match="1 x LABEL_MISSING"):
        score_study([unknown], model, Local(labels=labels))
    with pytest.raises(ConfigurationError, match=r"takes clinical columns.*no table"):
        score_study([unknown], model, Local())


def test_files_of_two_studies_are_refused_before_all_of_them_are_read(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    with pytest.raises(CohortError, match="several studies"):
        score_study(files(folder), model_for(config_of()))
    with pytest.raises(CohortError, match="no files"):
        score_study([], model_for(config_of()))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"IssuerOfPatientID": ("north", "south")}, "PATIENT_TWO_ISSUERS"),
        ({"PatientSex": ("F", "M")}, "PATIENT_CONFLICT"),
        ({"PatientBirthDate": ("19500101", "19510101")}, "PATIENT_CONFLICT"),
        ({"PatientID": ("P0", "P9")}, "PATIENT_TWO_IDS"),
    ],
)
def test_a_study_of_two_people_is_refused_with_the_reason_of_training(
    tmp_path: Path, said: dict[str, tuple[str, str]], code: str
) -> None:
    ((name, values),) = said.items()
    for number, value in enumerate(values):
        one = image(noise(20, 24, seed=number), "P0", "S", "1", number)
        # What differs may stand in an image that the model does not take.
        one.Modality = ("OT", "US")[number]
        setattr(one, name, value)
        save(tmp_path / f"{number}.dcm", one)
    config = config_of(cohort="{images: {size: [16, 16], modalities: [OT]}, smallest_cohort: 1}")
    with pytest.raises(CohortError, match=code):
        score_study(files(tmp_path), model_for(config))


def test_pictures_of_several_modalities_get_no_answer_together(tmp_path: Path) -> None:
    for number, modality in enumerate(("CR", "US")):
        one = image(noise(20, 24, seed=number), "P0", "S", "1", number)
        one.Modality = modality
        save(tmp_path / f"{number}.dcm", one)
    with pytest.raises(CohortError, match=r"2 modalities \(CR, US\)"):
        score_study(files(tmp_path), model_for(config_of()))


def test_what_training_leaves_out_is_no_part_of_an_answer(tmp_path: Path) -> None:
    """Another part of the body, the other side, a scout; a screenshot beside acquired images."""
    acquired = "1.2.840.10008.5.1.4.1.1.6.1"
    for number, said in enumerate(
        (
            {"SOPClassUID": acquired},
            {"BodyPartExamined": "HAND"},
            {"ImageLaterality": "R"},
            {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            {},
        )
    ):
        one = image(noise(20, 24, seed=number), "P0", "S", "1", number)
        for name, value in said.items():
            setattr(one, name, value)
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        save(tmp_path / f"{number}.dcm", one)
    images = "{size: [16, 16], body_parts: [BREAST], laterality: L}"
    model = model_for(config_of(cohort=f"{{images: {images}, smallest_cohort: 1}}"))
    told: list[Unusable] = []
    found = score_study(files(tmp_path), model, Local(explain=False), told.append)
    assert values(found) == values(score_study([tmp_path / "0.dcm"], model, Local(explain=False)))
    assert sorted(one.reason.name for one in told) == [
        "DERIVED",
        "LOCALIZER",
        "WRONG_BODYPART",
        "WRONG_LATERALITY",
    ]
    # A study of nothing but such pictures is what the model was asked about.
    assert len(score_study([tmp_path / "4.dcm"], model, Local(explain=False))) == 1


# --- calibrated ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, TrainedModel, SiteCalibration]:
    folder = site(tmp_path_factory.mktemp("site"), patients=60)
    model = model_for(config_of(cohort="{images: {size: [16, 16]}, split: {test_fraction: 0.5}}"))
    cohort = load(folder, model.config, folder / "cache")
    return folder, model, fit(cohort, model, CalibrationOptions())


def test_a_calibrated_answer_has_interval_set_and_share(
    calibrated: tuple[Path, TrainedModel, SiteCalibration],
) -> None:
    """Of a model that knows nothing: the set is of both, and no answer is given."""
    folder, model, calibration = calibrated
    assert calibration.patients >= FEWEST_PATIENTS
    found = score_study(files(folder / "P0"), model, Local(calibration=calibration))[0]
    first = found.quantities[0]
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.value < first.high
    assert first.raw != first.value
    assert found.coverage == 0.9
    assert found.prediction_set == ("not ill", "ill")
    assert found.abstained == "it may be not ill or ill"
    assert found.unlike_training is not None
    assert found.unlike_training > calibration.flagged
    assert all(q.low is None for q in found.quantities[1:]), "single images are not calibrated"


def test_what_is_unlike_training_gets_no_answer_unless_one_is_wanted(
    calibrated: tuple[Path, TrainedModel, SiteCalibration], tmp_path: Path
) -> None:
    _, model, calibration = calibrated
    sure = replace(calibration, thresholds=((2.0, -1.0),))  # always: not ill
    ramp = (np.arange(20)[:, None] * np.ones(24) * 100).astype(np.uint16)
    odd = save(tmp_path / "odd.dcm", image(ramp))
    (found,) = score_study([odd], model, Local(calibration=sure))
    assert found.unlike_training == pytest.approx(1 / (1 + calibration.patients))
    assert found.abstained is not None
    assert "unlike the images" in found.abstained
    assert found.prediction_set == ("not ill",)
    (answered,) = score_study([odd], model, Local(calibration=sure, abstain=False))
    assert answered.abstained is None
    assert answered.unlike_training == found.unlike_training


@pytest.mark.parametrize(
    ("limits", "told"),
    [((2.0, -1.0), None), ((-1.0, -1.0), "it is like none of this site's patients with not ill")],
)
def test_one_label_is_an_answer_and_none_is_not(
    limits: tuple[float, float],
    told: str | None,
    calibrated: tuple[Path, TrainedModel, SiteCalibration],
) -> None:
    folder, model, calibration = calibrated
    forced = replace(calibration, thresholds=(limits,))
    (found,) = score_study(files(folder / "P3"), model, Local(calibration=forced))
    assert found.abstained is None if told is None else told in str(found.abstained)


# --- opening -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = config_of(cohort=f"{{{TABLE}}}", network="table")
    return bundled(tmp_path_factory.mktemp("bundle"), config, stirred(config))


def copied(bundle: Path, folder: Path, **changes: object) -> Path:
    """Return a copy whose card was changed."""
    shutil.copytree(bundle, folder)
    card = json.loads((folder / "card.json").read_text())
    for part, values_of in changes.items():
        assert isinstance(values_of, dict)
        card[part] |= values_of
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_bundle_opens_as_the_model_that_it_was_made_of(bundle: Path) -> None:
    model = open_model(bundle)
    expected = stirred(model.config)
    rows = torch.randn(5, 2)
    with torch.no_grad():
        assert torch.equal(model.deployed(table=rows)[1], expected(torch.zeros(5, 0), rows))
    assert len(model.name.weights) == 64
    assert model.name.name == "test"
    assert not model.deployed.training


def test_a_bundle_of_another_release_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = copied(bundle, tmp_path / "other", versions={"wardround": "0.0.1"})
    with pytest.raises(ConfigurationError, match=r"made by Wardround 0\.0\.1; this is .* export"):
        open_model(other)


def test_weights_that_do_not_compute_what_the_onnx_file_does_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    """Though every file is as its card says."""
    import hashlib

    weights = load_weights(bundle / "model.safetensors")
    weights[next(iter(weights))] += 0.1
    save_weights(tmp_path / "model.safetensors", weights)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    other = copied(bundle, tmp_path / "other", files={"model.safetensors": digest})
    shutil.copy(tmp_path / "model.safetensors", other / "model.safetensors")
    with pytest.raises(StateDamaged, match="compute different answers"):
        open_model(other)


# --- every kind of answer, calibrated ------------------------------------------------------


def with_line(
    config: RunConfig, model: TrainedModel, limits: tuple[tuple[float, ...], ...]
) -> Local:
    """Return a calibration that halves outputs and has these sets."""
    outputs = len(model.deployed(torch.zeros(1, 1, 16, 16))[1][0])
    line = np.array([0.5, *[0.0] * outputs])
    calibration = SiteCalibration(
        weights=model.name.weights,
        parts=("test",),
        patients=50,
        coverage=0.9,
        flagged=0.05,
        line=line,
        draws=np.stack([line * 0.8, line * 1.2]),
        thresholds=limits,
        counts=((25, 25),) * len(limits),
        distances=np.full(50, 1e9),
        reference=torch.zeros(5, 1280),
        members=frozenset(),
    )
    assert config.cohort.table is None
    return Local(calibration=calibration)


def answered(task: str, limits: tuple[tuple[float, ...], ...], folder: Path) -> Score:
    config = config_of(task=task)
    model = model_for(config)
    (found,) = score_study(files(site(folder) / "P1"), model, with_line(config, model, limits))
    return found


def test_several_labels_are_decided_each_by_itself(tmp_path: Path) -> None:
    """There is no answer only where none of them is decided."""
    task = "{kind: diagnosis, type: multilabel, target: [wet, cold]}"
    one = answered(task, ((2.0, 2.0), (-1.0, 2.0)), tmp_path / "a")
    assert one.prediction_set == ("not wet", "wet", "cold")
    assert one.abstained is None
    assert [q.label for q in one.quantities] == ["wet", "cold"]
    none = answered(task, ((2.0, 2.0), (-1.0, -1.0)), tmp_path / "b")
    assert none.abstained == (
        "it may be not wet or wet; it is like none of this site's patients with not cold or cold"
    )


def test_one_of_several_classes_is_an_answer(tmp_path: Path) -> None:
    task = "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}"
    found = answered(task, ((-1.0, 2.0, -1.0),), tmp_path)
    assert found.prediction_set == ("b",)
    assert found.abstained is None
    assert sum(q.raw for q in found.quantities) == pytest.approx(1)
    assert sum(q.value for q in found.quantities) == pytest.approx(1)


def test_survival_has_an_interval_at_each_time_and_no_set(tmp_path: Path) -> None:
    task = "{kind: prognosis, event: ill, time: age, unit: months, intervals: [6, 12]}"
    found = answered(task, (), tmp_path)
    assert (found.prediction_set, found.coverage, found.abstained) == (None, None, None)
    assert found.unlike_training == 1.0
    for quantity in found.quantities:
        assert quantity.low is not None
        assert quantity.high is not None
        assert quantity.low < quantity.value < quantity.high
        assert quantity.value != quantity.raw
    assert found.quantities[0].value > found.quantities[1].value
