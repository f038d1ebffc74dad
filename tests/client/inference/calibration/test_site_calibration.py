"""Promises of a site's calibration, and that they are kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor, nn

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from client.inference import fit_calibration as calibration_fit
from client.inference.calibration.label_questions import class_probabilities, true_classes
from client.inference.calibration.out_of_distribution import share_as_unlike
from client.inference.calibration.platt_scaling import fit_lines
from client.inference.calibration.prediction_sets import sets_of, threshold
from client.inference.calibration.site_calibration import (
    SiteCalibration,
    hashed,
    judge,
    keep_calibration,
    load_calibration,
)
from client.inference.fit_calibration import FEWEST_PATIENTS, CalibrationOptions, fit, parts_of
from client.inference.trained_model import TrainedModel
from common.config.run_config import RunConfig, parse_config
from common.data.kept_items import pieces
from common.data.sample import Patients
from common.platform.errors import CohortError, ConfigurationError, StateDamaged
from common.tasks import task_of
from common.tasks.prognosis import encode_time
from tests.client.dicom_files import SHARED, load
from tests.client.small_models import head_on_features, model_of, stirred
from tests.privacy.made_up import volumes_of_patients

TASKS = {
    "binary": "{kind: diagnosis, target: ill, classes: [well, ill]}",
    "multiclass": "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}",
    "ordinal": "{kind: diagnosis, type: ordinal, target: grade, classes: [a, b, c]}",
    "multilabel": "{kind: diagnosis, type: multilabel, target: [wet, cold]}",
    "horizon": "{kind: prognosis, outcome: fixed_horizon, event: died}",
    "number": "{kind: regression, target: ef, range: [0, 100], unit: '%'}",
    "survival": "{kind: prognosis, event: died, time: t, intervals: [1, 2, 3, 4]}",
}


def run(kind: str, extra: str = "") -> RunConfig:
    return parse_config(
        f"{{name: try, task: {TASKS[kind]}, cohort: {{table: {{numbers: [{{column: x}}]}}}},"
        f"model: {{network: table}}, training: {{rounds: 1}}, privacy: none {extra}}}"
    )


# --- sets ----------------------------------------------------------------------------------


@given(patients=st.integers(1, 60), coverage=st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_a_threshold_holds_the_share_that_was_asked_for(patients: int, coverage: float) -> None:
    """Of n + 1 exchangeable patients, the new one is in with at least that chance: by counting."""
    misfit = np.random.default_rng(patients).permutation(patients + 1).astype(float)
    inside = [
        misfit[new] <= threshold(np.delete(misfit, new), coverage) for new in range(patients + 1)
    ]
    assert np.mean(inside) >= coverage - 1e-9
    if not math.isinf(threshold(misfit[:-1], coverage)):
        assert np.mean(inside) <= coverage + 1 / (patients + 1) + 1e-9, "and no more than needed"


def test_a_class_with_too_few_patients_is_never_ruled_out() -> None:
    assert math.isinf(threshold(np.linspace(0, 1, 8), 0.9))
    assert threshold(np.linspace(0, 1, 9), 0.9) == 1.0
    sets = sets_of(((0.2, float("inf")),), np.array([[0.001], [0.5], [0.9]]), run("binary"))
    assert sets == [(("well", "ill"),), (("ill",),), (("ill",),)]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel", "horizon"])
def test_every_question_has_the_classes_that_its_probabilities_and_truths_mean(kind: str) -> None:
    config = run(kind)
    labels = len(task_of(config.task).predict(torch.zeros(1, task_of(config.task).logits))[0])
    prediction = np.full((2, labels), 1 / labels)
    target = np.zeros((2, labels))
    target[0, -1] = 1
    target[1, 0] = 1
    for asked, chance, truth in zip(
        config.task.alternatives,
        class_probabilities(config, prediction),
        true_classes(config, target),
        strict=True,
    ):
        assert chance.shape == (2, len(asked))
        assert np.allclose(chance.sum(axis=1), 1)
        assert truth.max() < len(asked)
    empty = np.array([[np.nan, 1.0]])
    if kind == "multilabel":
        assert [t.tolist() for t in true_classes(config, empty)] == [[-1], [1]]
        assert config.task.alternatives[0] == ("not wet", "wet")


def test_survival_and_outlines_have_no_sets() -> None:
    assert run("survival").task.alternatives == ()


def drawn(patients: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return outputs of a model that is too sure by half and an offset, and what was true."""
    generator = torch.Generator().manual_seed(seed)
    logit = 1.5 * torch.randn(patients, 1, generator=generator)
    ill = (torch.rand(patients, 1, generator=generator) < torch.sigmoid(logit)).float()
    return 2.0 * logit + 1.0, ill


def cohort_of(output: Tensor, target: Tensor) -> SiteCohort:
    """Return patients whose one column is what the model will answer."""
    names = tuple(f"P{n:04d}" for n in range(len(output)))
    return SiteCohort(
        name="north",
        items=Patients(
            image=torch.zeros(len(output), 0),
            table=torch.cat([output[:, :1], torch.zeros(len(output), 1)], dim=1),
            target=target,
            patient=torch.arange(len(output)),
            pseudonyms=names,
        ),
        given={},
        confounder=("",) * len(output),
        unusable=(),
    )


class FirstColumn(nn.Module):
    """Answers with its table's first column."""

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del image
        return table[:, :1]


def test_sets_cover_each_class_as_promised_on_patients_like_the_calibrations() -> None:
    """Within binomial tolerance, over 10 sites; the bound itself is for the mean over sites."""
    config = run("binary")
    model = model_of(config, FirstColumn())
    covered = {name: [0, 0] for name in ("well", "ill")}
    for seed in range(10):
        calibration = fit(cohort_of(*drawn(800, seed)), model, CalibrationOptions(coverage=0.9))
        output, ill = drawn(200, 1000 + seed)
        sets = sets_of(calibration.thresholds, task_of(config.task).predict(output).numpy(), config)
        for (held,), truth in zip(sets, ill.flatten().int().tolist(), strict=True):
            name = ("well", "ill")[truth]
            covered[name][0] += name in held
            covered[name][1] += 1
    for hits, patients in covered.values():
        # Each site's own threshold scatters too: 100 patients a class, so +-0.03 over 10 sites.
        assert hits > binom.ppf(0.001, patients, 0.9 - 0.02)
        assert hits < binom.ppf(0.999, patients, 0.9 + 0.03)


# --- values --------------------------------------------------------------------------------


def test_slope_and_offset_bring_an_overconfident_model_back() -> None:
    line, draws = fit_lines(*drawn(1000, 1), run("binary"), seed=0)
    spread = draws.std(axis=0)
    assert draws.shape == (200, 2)
    assert np.all(spread < 0.15)
    assert np.all(np.abs(line - [0.5, -0.5]) < 3 * spread)
    assert np.all(np.abs(draws.mean(axis=0) - line) < spread / 3)


def test_more_patients_make_the_interval_narrower() -> None:
    few, many = (fit_lines(*drawn(n, 2), run("binary"), seed=0)[1].std(axis=0) for n in (40, 1000))
    assert np.all(few > 2.5 * many)


def test_few_patients_who_all_turned_out_as_said_do_not_make_the_model_certain() -> None:
    output = torch.linspace(-2, 2, 20)[:, None]
    line, _ = fit_lines(output, (output > 0).float(), run("binary"), seed=0)
    assert 1 < line[0] < 2.5


@pytest.mark.parametrize("kind", ["multiclass", "ordinal", "multilabel"])
def test_the_loss_never_rises_by_the_calibration(kind: str) -> None:
    config = run(kind)
    task = task_of(config.task)
    generator = torch.Generator().manual_seed(0)
    output = 3 * torch.randn(400, task.logits, generator=generator)
    labels = len(config.task.labels)
    place = torch.randint(0, labels, (400,), generator=generator)
    target = nn.functional.one_hot(place, labels).float()
    if kind == "multilabel":
        target[::7, 0] = torch.nan
    line, _ = fit_lines(output, target, config, seed=0)
    moved = output.double() * line[0] + torch.from_numpy(line[1:])
    assert task.item_loss(moved, target.double()).mean() < task.item_loss(output, target).mean()
    assert line[0] < 0.2, "the outputs knew nothing"


def test_survival_is_calibrated_by_one_offset_of_its_hazards() -> None:
    """A site whose patients die twice as often is told so."""
    rng = np.random.default_rng(0)
    hazard = 0.1
    edges = np.array([1.0, 2.0, 3.0, 4.0])
    times = rng.geometric(2 * hazard, 1000) - 0.5
    target = torch.from_numpy(
        np.stack([encode_time(min(t, 4.0), float(t <= 4), edges) for t in times])
    )
    output = torch.full((1000, 4), math.log(hazard / (1 - hazard)))
    line, _ = fit_lines(output, target, run("survival"), seed=0)
    assert len(line) == 2
    assert line[0] == 1
    found = torch.sigmoid(output[0, 0] + line[1]).item()
    assert found == pytest.approx(2 * hazard, abs=0.025)


def test_a_value_lies_in_its_interval_and_follows_the_line() -> None:
    model = model_of(run("binary"), FirstColumn())
    calibration = fit(cohort_of(*drawn(600, 5)), model, CalibrationOptions())
    for logit in (-4.0, -0.3, 0.0, 2.0):
        judged = judge(calibration, torch.tensor([logit]), model.config)
        expected = 1 / (1 + math.exp(-(calibration.line[0] * logit + calibration.line[1])))
        assert judged.value[0] == pytest.approx(expected)
        assert 0 < judged.low[0] <= judged.value[0] <= judged.high[0] < 1
        assert judged.high[0] - judged.low[0] > 0.001


def test_a_number_gets_an_interval_that_holds_the_truth_as_often_as_it_promises() -> None:
    config = run("number")
    model, held, widths = model_of(config, FirstColumn()), [], []
    for seed in range(10):
        calibration = fit(cohort_of(*numbers(400, seed)), model, CalibrationOptions(coverage=0.9))
        output, truth = numbers(200, 1000 + seed)
        judged = [judge(calibration, one, config) for one in output]
        for one, number in zip(judged, truth.flatten().tolist(), strict=True):
            assert 0 <= one.low[0] <= one.value[0] <= one.high[0] <= 100
            held.append(one.low[0] <= number <= one.high[0])
            widths.append(one.high[0] - one.low[0])
        assert one.sets == ()
        assert one.value[0] == pytest.approx(float(task_of(config.task).predict(output)[-1]))
    assert binom.ppf(0.001, 2000, 0.87) < sum(held) < binom.ppf(0.999, 2000, 0.93)
    assert np.mean(widths) == pytest.approx(2 * 1.645 * 10, rel=0.1)


def numbers(patients: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return outputs of a model that errs by 10 of 100, and what was true."""
    generator = torch.Generator().manual_seed(seed)
    truth = (50 + 15 * torch.randn(patients, 1, generator=generator)).clamp(0, 100)
    return (truth + 10 * torch.randn(patients, 1, generator=generator) - 50) / 25, truth


# --- whose patients ------------------------------------------------------------------------


def test_no_patient_of_the_training_part_has_a_say() -> None:
    """Everything that training patients turned out to have may be wrong, and nothing changes."""
    model = model_of(run("binary"), FirstColumn())
    cohort = cohort_of(*drawn(300, 3))
    parts = cohort.parts(model.config.cohort.split, simulated_key(model.seed))
    trained_on = torch.tensor([parts[name] == "train" for name in cohort.items.pseudonyms])
    wrong = torch.where(trained_on[:, None], 1 - cohort.items.target, cohort.items.target)
    poisoned = replace(cohort, items=replace(cohort.items, target=wrong))
    ours, theirs = (
        fit(cohort, model, CalibrationOptions()),
        fit(poisoned, model, CalibrationOptions()),
    )
    assert np.array_equal(ours.line, theirs.line)
    assert ours.thresholds == theirs.thresholds
    held_out = torch.where(~trained_on[:, None], 1 - cohort.items.target, cohort.items.target)
    other = replace(cohort, items=replace(cohort.items, target=held_out))
    assert fit(other, model, CalibrationOptions()).thresholds != ours.thresholds


def test_validation_patients_count_only_where_nothing_was_chosen_by_them() -> None:
    assert parts_of(run("binary", ", selection: {rule: last}")) == ("test", "validation")
    assert parts_of(run("binary", ", selection: {rule: best}")) == ("test",)


def test_too_few_patients_give_no_calibration_and_are_told() -> None:
    model = model_of(run("binary"), FirstColumn())
    with pytest.raises(CohortError, match=f"Only .* expected at least {FEWEST_PATIENTS}"):
        fit(cohort_of(*drawn(60, 0)), model, CalibrationOptions())


@pytest.mark.parametrize("wrong", [{"coverage": 1.0}, {"coverage": 0.3}, {"flagged": 0.9}])
def test_a_wish_that_promises_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="Expected"):
        CalibrationOptions(**wrong)


# --- on disk -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> SiteCalibration:
    model = model_of(run("binary"), FirstColumn(), weights="ab" * 32)
    return fit(cohort_of(*drawn(400, 4)), model, CalibrationOptions())


def test_a_calibration_is_read_back_as_it_was_kept(fitted: SiteCalibration, tmp_path: Path) -> None:
    few = replace(fitted, thresholds=((0.5, float("inf")),))
    path = keep_calibration(tmp_path, few)
    found = load_calibration(tmp_path, few.weights, frozenset({"somebody else"}))
    assert found is not None
    for name, value in vars(few).items():
        held = getattr(found, name)
        same = held == value
        assert bool(np.all(same.numpy() if isinstance(same, Tensor) else same)), name
    assert path.stat().st_mode & 0o077 == 0
    assert path.with_suffix(".safetensors").stat().st_mode & 0o077 == 0
    assert "P0000" not in path.read_text(), "no PatientID is in it"


def test_another_models_calibration_is_never_used(fitted: SiteCalibration, tmp_path: Path) -> None:
    keep_calibration(tmp_path, fitted)
    assert load_calibration(tmp_path, "cd" * 32, frozenset()) is None


def test_a_calibration_that_holds_a_withdrawn_patient_is_deleted(
    fitted: SiteCalibration, tmp_path: Path
) -> None:
    keep_calibration(tmp_path, fitted)
    assert hashed(["P0007"]) <= fitted.members
    assert load_calibration(tmp_path, fitted.weights, frozenset({"P0007"})) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "other schema", "other reference", "wrong type"])
def test_a_damaged_calibration_is_refused_by_name(
    fitted: SiteCalibration, tmp_path: Path, damage: str
) -> None:
    path = keep_calibration(tmp_path, fitted)
    content = json.loads(path.read_text())
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-30])
        case "other schema":
            path.write_text(json.dumps(content | {"schema": 99}))
        case "other reference":
            keep_calibration(tmp_path / "b", replace(fitted, reference=fitted.reference + 1))
            (tmp_path / "b" / path.with_suffix(".safetensors").name).replace(
                path.with_suffix(".safetensors")
            )
        case _:
            path.write_text(json.dumps(content | {"thresholds": 3}))
    with pytest.raises(StateDamaged, match=f"{path.name}.*Delete it"):
        load_calibration(tmp_path, fitted.weights, frozenset())


# --- unlike training -----------------------------------------------------------------------


def test_the_share_as_unlike_counts_the_new_one_itself() -> None:
    three = np.array([1.0, 2.0, 3.0])
    assert [share_as_unlike(three, d) for d in (0.5, 2.0, 9.0)] == [1.0, 0.75, 0.25]


IMAGES = """
name: frozen
task: {kind: diagnosis, target: malignant, classes: [benign, malignant]}
cohort: {images: {size: [96, 96]}, split: {test_fraction: 0.4}}
model: {network: frozen_features}
training: {rounds: 1}
privacy: none
"""


def covered(model: TrainedModel, test: Patients) -> float:
    """Return the part of patients whose set holds the truth, over 100 random halves of them."""
    output = model.deployed(test.image)[1]
    prediction = task_of(model.config.task).predict(output).numpy()
    rng, hits = np.random.default_rng(0), []
    for _ in range(100):
        order = rng.permutation(len(test))
        ours, new = order[: len(test) // 2], order[len(test) // 2 :]
        limits, _ = calibration_fit._thresholds(output[ours], test.target[ours], model.config, 0.9)
        names = model.config.task.alternatives[0]
        sets = sets_of(limits, prediction[new], model.config)
        truth = test.target[new].flatten().int().tolist()
        hits += [names[t] in held for (held,), t in zip(sets, truth, strict=True)]
    return float(np.mean(hits))


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_ultrasound_is_usual_and_other_pictures_are_not(tmp_path: Path) -> None:
    """With a head that was fitted on the training part; usual are those of the test part."""
    config = parse_config(IMAGES.replace(", classes: [benign, malignant]", ""))
    cohort = load(SHARED / "breast-us" / "west", config, tmp_path)
    parts = cohort.split(config.cohort.split, simulated_key(0))
    test = parts["test"]
    model = model_of(config, head_on_features(config, parts["train"]))
    calibration = fit(cohort, model, CalibrationOptions(flagged=0.1))
    assert calibration.patients == len(test) >= 40
    assert 0.88 < covered(model, test) < 0.97
    usual = [share_as_unlike(calibration.distances, d) for d in calibration.distances]
    assert np.mean(np.array(usual) <= 0.1) <= 0.1
    generator = torch.Generator().manual_seed(0)
    from client.inference.calibration.out_of_distribution import distances, embedded

    pictures = {
        "noise": torch.rand(5, 1, 96, 96, generator=generator),
        "stripes": (torch.arange(96) // 8 % 2).float().expand(2, 1, 96, 96),
        "another modality": load(
            SHARED / "chest-icu" / "ward-c",
            parse_config(IMAGES.replace("malignant, classes: [benign, malignant]", "icu")),
            tmp_path / "chest",
        ).items.image[:10],
    }
    for name, image in pictures.items():
        away = distances(calibration.reference, embedded(image, torch.zeros(0), config))
        flagged = [share_as_unlike(calibration.distances, float(d)) <= 0.1 for d in away]
        assert all(flagged), name


def test_a_network_that_answers_from_images_is_not_what_distances_are_taken_by() -> None:
    """They are the same whatever the weights are: nothing was learnt of what is usual."""
    from client.inference.calibration.out_of_distribution import embedded

    config = parse_config(IMAGES.replace("frozen_features", "small_cnn"))
    image = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    stirred(config)
    first = embedded(image, torch.zeros(2, 0), config)
    assert first.shape == (2, 1280)
    assert torch.equal(first, embedded(image, torch.zeros(2, 0), config))
    assert not torch.allclose(first[0], first[1])


def test_a_volume_is_looked_at_in_planes() -> None:
    from client.inference.calibration.out_of_distribution import distances, embedded

    config = parse_config(
        IMAGES.replace("[96, 96]", "[8, 16, 16]").replace("frozen_features", "small_cnn")
    )
    generator = torch.Generator().manual_seed(0)
    smooth = torch.linspace(-2, 2, 16).expand(6, 1, 8, 16, 16) + 0.1 * torch.rand(
        6, 1, 8, 16, 16, generator=generator
    )
    noisy = torch.randn(1, 1, 8, 16, 16, generator=generator)
    reference = embedded(smooth[:5], torch.zeros(0), config)
    near = distances(reference, embedded(smooth[5:], torch.zeros(0), config))
    far = distances(reference, embedded(noisy, torch.zeros(0), config))
    assert float(far) > 2 * float(near)


def test_volumes_that_are_trained_on_by_patches_are_calibrated_as_a_whole(tmp_path: Path) -> None:
    """Images of extents of their own, one read at a time; outlines get the flag alone."""
    from client.inference.calibration.out_of_distribution import distances, embedded

    config = parse_config("""
name: patches
task: {kind: segmentation}
cohort: {images: {patch: [16, 16]}, split: {test_fraction: 0.5}}
model: {network: unet, width: 4}
training: {rounds: 1}
privacy: none
""")
    items = volumes_of_patients(tmp_path, (1,) * 45 + (2,), (16, 16))
    none = ("",) * len(items.patient)
    cohort = SiteCohort(name="north", items=items, given={}, confounder=none, unusable=())
    model = model_of(config, stirred(config))
    calibration = fit(cohort, model, CalibrationOptions())
    parts = cohort.split(config.cohort.split, simulated_key(0))
    assert calibration.patients == len(parts["test"]) >= FEWEST_PATIENTS
    assert calibration.thresholds == ()
    assert calibration.distances.shape == (calibration.patients,)
    first = next(pieces(parts["test"].image))  # read whole, as `predict` reads a study
    (away,) = distances(calibration.reference, embedded(first, torch.zeros(1, 0), config)).tolist()
    assert calibration.distances[0] == pytest.approx(away)
    flat = embedded(torch.zeros(1, 1, 20, 30), torch.zeros(1, 0), config)
    apart = float(distances(calibration.reference, flat))
    assert share_as_unlike(calibration.distances, apart) <= calibration.flagged
