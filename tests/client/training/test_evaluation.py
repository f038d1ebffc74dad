from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from client.training.evaluation import evaluate_round, score, site_statistics
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from common.config.run_config import Evaluation, RunConfig
from common.data.sample import Patients
from common.data.weights import load_into, trainable
from common.messages.wire import EvaluationRequest, Refusal, RefusalReason, SiteReport
from common.metrics.statistics import Statistics
from common.platform.errors import CohortError
from common.tasks.diagnosis import Diagnosis
from common.tasks.task import Scores
from tests.client.local_runs import (
    config_of,
    copied,
    image_config_of,
    nobody,
    request_of,
    site_of,
    update_of,
    weights_of,
)
from tests.privacy.made_up import patients_of
from tests.server.hospitals import same_bits

Split = Literal["validation", "test"]
SPLITS = pytest.mark.parametrize("split", ["validation", "test"])
IMAGE = (1, 16, 16)


def agreed(patients: Patients, ill: int | None = None) -> Patients:
    """Return the patients with one target for all items of each, so many of them ill."""
    count = len(patients)
    by_patient = torch.arange(count) < (count // 2 if ill is None else ill)
    return replace(patients, target=by_patient.float()[patients.patient][:, None])


def local_model_of(config: RunConfig) -> LocalModel:
    local_model = open_local_model(config, 0)
    load_into(local_model.model, weights_of(config))
    return local_model


def request(config: RunConfig, split: Split = "validation", number: int = 1) -> EvaluationRequest:
    return EvaluationRequest(
        run="run", round=number, seed=0, config=config, weights=weights_of(config), split=split
    )


# --- scores, which stay at the site ----------------------------------------------------------


def score_slowly(local_model: LocalModel, patients: Patients) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction, target and loss of one patient after another."""
    rows = []
    for patient in range(len(patients)):
        items = patients.items_of(patient)
        with torch.no_grad():
            output = local_model.model(patients.image[items], patients.table[items]).mean(
                0, keepdim=True
            )
        target = patients.target[items[:1]]
        rows.append(
            (local_model.task.predict(output), target, local_model.task.item_loss(output, target))
        )
    prediction, target, loss = zip(*rows, strict=True)
    return torch.cat(prediction), torch.cat(target), torch.cat(loss)


@given(st.lists(st.sampled_from([1, 2, 3, 17, 63, 64, 65, 130]), min_size=1, max_size=6))
def test_a_patients_items_are_never_parted_however_many_go_through_at_once(
    items: list[int],
) -> None:
    local_model, patients = local_model_of(config_of()), agreed(patients_of(items, (0,)))
    found, expected = score(local_model, patients), score_slowly(local_model, patients)
    assert found.owner is None
    for one, other in zip((found.prediction, found.target, found.loss), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_by_image_each_row_knows_its_patient() -> None:
    config = config_of("evaluation: {unit: image}")
    patients = agreed(patients_of((1, 3, 70, 2), (0,)))
    found = score(local_model_of(config), patients)
    assert found.owner is not None
    assert torch.equal(found.owner, patients.patient)
    assert torch.equal(found.target, patients.target)
    assert len(found.prediction) == len(found.loss) == 76


def test_scores_are_taken_without_dropout_and_training_goes_on_with_it() -> None:
    local_model = local_model_of(image_config_of(dropout=0.5))
    patients, before = agreed(patients_of((2,) * 6, IMAGE)), torch.get_rng_state()
    assert torch.equal(
        score(local_model, patients).prediction, score(local_model, patients).prediction
    )
    assert torch.equal(before, torch.get_rng_state())
    assert local_model.model.training


def test_a_network_that_fails_while_it_is_measured_goes_on_in_training_mode() -> None:
    local_model = local_model_of(config_of())
    narrow = replace(patients_of((1,) * 6, (0,)), table=torch.zeros(6, 1))
    with pytest.raises(RuntimeError, match="shapes"):
        score(local_model, narrow)
    assert local_model.model.training


def test_measuring_leaves_no_gradient_and_no_change() -> None:
    local_model = local_model_of(config_of())
    before = copied(trainable(local_model.model))
    found = score(local_model, agreed(patients_of((1,) * 6, (0,))))
    assert same_bits(trainable(local_model.model), before)
    assert not found.loss.requires_grad
    assert all(value.grad is None for value in local_model.model.parameters())


def test_a_split_without_patients_has_no_scores_and_says_so() -> None:
    with pytest.raises(CohortError, match="0 patients in a split"):
        score(local_model_of(config_of()), nobody())


# --- who is measured -------------------------------------------------------------------------


@SPLITS
def test_an_empty_split_is_refused_with_a_reason_and_the_other_is_measured(split: Split) -> None:
    config = config_of()
    local_model, full = open_local_model(config, 0), agreed(patients_of((1,) * 30, (0,)))
    site = site_of(validation=full, test=nobody())
    if split == "validation":
        site = site_of(validation=nobody(), test=full)
    answer = evaluate_round(site, local_model, request(config, split))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.TOO_FEW_PATIENTS
    assert (answer.run, answer.round, answer.site) == ("run", 1, "here")
    other: Split = "test" if split == "validation" else "validation"
    assert isinstance(evaluate_round(site, local_model, request(config, other)), SiteReport)


@SPLITS
@pytest.mark.parametrize(("patients", "refused"), [(1, True), (6, True), (7, False)])
def test_a_split_of_fewer_patients_than_the_smallest_cell_is_refused(
    split: Split,
    patients: int,
    refused: bool,  # noqa: FBT001
) -> None:
    config = config_of("evaluation: {smallest_cell: 7}")
    few = agreed(patients_of((3,) * patients, (0,)))  # it is patients that count, not items
    answer = evaluate_round(
        site_of(validation=few, test=few), open_local_model(config, 0), request(config, split)
    )
    assert isinstance(answer, Refusal) is refused


def test_an_empty_split_does_not_stop_the_training_of_a_round() -> None:
    config = config_of()
    site = site_of(validation=nobody(), test=nobody())
    update = update_of(site, open_local_model(config, 0), request_of(config))
    assert update.steps > 0
    assert any(bool(value.any()) for value in update.delta.values())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_split_that_was_asked_for_is_measured(split: Split) -> None:
    config, local_model = config_of(), open_local_model(config_of(), 0)
    site = site_of(
        validation=agreed(patients_of((1,) * 20, (0,))), test=agreed(patients_of((1,) * 40, (0,)))
    )
    report = evaluate_round(site, local_model, request(config, split))
    assert isinstance(report, SiteReport)
    assert float(report.statistics.patients) == (20 if split == "validation" else 40)


# --- what may leave --------------------------------------------------------------------------


@given(
    st.integers(5, 60), st.integers(0, 60), st.integers(1, 9), st.sampled_from(["patient", "image"])
)
def test_no_count_below_the_smallest_cell_is_ever_released(
    patients: int, ill: int, smallest: int, unit: str
) -> None:
    config = config_of(f"evaluation: {{smallest_cell: {smallest}, unit: {unit}}}")
    made = agreed(patients_of((1, 2, 1, 3, 1) * 12, (0,)), min(ill, patients))
    here = made.patient < patients
    some = Patients(
        image=made.image[here],
        table=made.table[here],
        target=made.target[here],
        patient=made.patient[here],
        pseudonyms=made.pseudonyms[:patients],
    )
    answer = evaluate_round(site_of(validation=some), open_local_model(config, 0), request(config))
    if isinstance(answer, Refusal):
        assert patients < smallest
        return
    told = answer.statistics
    counts = np.concatenate([v.ravel() for v in (told.patients, *told.cells.values())])
    assert ((counts == 0) | (counts >= smallest)).all()


class Forgetful(Diagnosis):
    """A task that counts as if every cell might be told."""

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return counts of ranges of one patient."""
        return super().statistics(scores, rules.model_copy(update={"smallest_cell": 1}))


def test_small_cells_are_withheld_even_where_a_task_forgets_to() -> None:
    config = config_of("evaluation: {smallest_cell: 6}")
    patients = agreed(patients_of((1,) * 40, (0,)), ill=3)
    local_model = replace(local_model_of(config), task=Forgetful(config=config.task))
    open_handed = local_model.task.statistics(score(local_model, patients), config.evaluation)
    assert any(((v > 0) & (v < 6)).any() for v in open_handed.cells.values())
    told = site_statistics(local_model, patients)
    assert all(((v == 0) | (v >= 6)).all() for v in told.cells.values())


@pytest.mark.parametrize("smallest", [1, 5, 11])
def test_a_task_counts_by_the_smallest_cell_of_the_run(smallest: int) -> None:
    # Sums over few patients cannot be told from their counts: the task must hold them back.
    config = config_of(f"evaluation: {{smallest_cell: {smallest}}}")
    local_model, patients = local_model_of(config), agreed(patients_of((1, 2) * 20, (0,)), ill=4)
    expected = local_model.task.statistics(score(local_model, patients), config.evaluation)
    if smallest > 1:
        wrong = local_model.task.statistics(
            score(local_model, patients), Evaluation(smallest_cell=1)
        )
        assert wrong.to_json() != expected.to_json()
    assert site_statistics(local_model, patients).to_json() == expected.to_json()


def test_what_leaves_has_the_same_shapes_for_few_patients_and_for_many() -> None:
    config = config_of()
    local_model, shapes = local_model_of(config), []
    for count in (30, 300):
        told = site_statistics(local_model, agreed(patients_of((1,) * count, (0,))))
        held = {**told.cells, **told.sums}
        shapes.append({name: value.shape for name, value in held.items()})
        assert told.patients.shape == ()
    assert shapes[0] == shapes[1]


def test_the_same_request_gives_the_same_report() -> None:
    config = config_of()
    site = site_of(validation=agreed(patients_of((2,) * 30, (0,))))
    local_model = open_local_model(config, 0)
    first, again = (evaluate_round(site, local_model, request(config)) for _ in range(2))
    assert isinstance(first, SiteReport)
    assert isinstance(again, SiteReport)
    assert first.statistics.to_json() == again.statistics.to_json()
    assert first.spend is None


# --- the weights that are measured -----------------------------------------------------------


def test_a_site_is_measured_with_its_own_layers_also_after_it_missed_a_round() -> None:
    config = image_config_of("personalisation: {method: personal_head}")
    site = site_of(image=IMAGE, validation=agreed(patients_of((1,) * 20, IMAGE)))
    local_model = open_local_model(config, 0)
    train_round(site, local_model, request_of(config, 1))
    kept = site.memory.recall("run", 1)
    load_into(local_model.model, local_model.initial_local)
    for number in (1, 2):
        evaluate_round(site, local_model, request(config, number=number))
        held = trainable(local_model.model)
        assert same_bits({name: held[name] for name in local_model.local}, kept)


def test_measuring_changes_nothing_that_a_site_keeps() -> None:
    config = config_of("aggregation: {rule: scaffold}")
    site, local_model = site_of(), open_local_model(config, 0)
    train_round(site, local_model, request_of(config, 1))
    before = copied(site.memory.recall("run", 1))
    evaluate_round(site, local_model, request(config))
    assert same_bits(site.memory.recall("run", 1), before)
