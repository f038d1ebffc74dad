from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelProbabilities,
    SurvivalCurve,
)
from common.tasks import UnusableLabel
from common.tasks.prognosis import encode_time
from tests.common.every_task import CONFIGS, config_of, made, outputs_and_targets

EDGES = np.array([3.0, 6.0, 12.0, 24.0])


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1.0), ("0", 0.0), (" 1.0 ", 1.0), ("Yes", 1.0), ("false", 0.0)]
)
def test_cells_that_mean_yes_or_no_are_read(text: str, expected: float) -> None:
    assert made("binary").encode({"ill": text}).tolist() == [expected]


@pytest.mark.parametrize(
    ("kind", "row", "parts"),
    [
        ("binary", {"ill": "2"}, ("column ill", "'2'", "0 or 1")),
        ("binary", {"ill": ""}, ("column ill", "empty", "0 or 1")),
        ("multiclass", {"kind": "d"}, ("column kind", "'d'", "a, b, c")),
        ("multiclass", {"kind": " "}, ("column kind", "empty", "a, b, c")),
        ("multilabel", {"wet": "maybe", "cold": "1"}, ("column wet", "'maybe'", "0 or 1")),
        ("multilabel", {"wet": "", "cold": ""}, ("wet, cold", "empty", "0 or 1")),
        ("free", {"event": "1", "months": "-2"}, ("column months", "'-2'", "0 or more")),
        ("free", {"event": "1", "months": "nan"}, ("column months", "'nan'", "0 or more")),
        ("free", {"event": "1", "months": "soon"}, ("column months", "'soon'", "0 or more")),
        ("free", {"event": "dead", "months": "3"}, ("column event", "'dead'", "0 or 1")),
        ("fixed_horizon", {"event": "0", "months": "11.9"}, ("censored at 11.9", "horizon of 12")),
    ],
)
def test_a_label_that_cannot_be_used_says_where_what_and_what_was_expected(
    kind: str, row: dict[str, str], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UnusableLabel) as refused:
        made(kind).encode(row)
    for part in parts:
        assert part in str(refused.value)


def test_labels_become_targets() -> None:
    assert made("multiclass").encode({"kind": "b"}).tolist() == [0, 1, 0]
    np.testing.assert_array_equal(
        made("multilabel").encode({"wet": "1", "cold": ""}), [1.0, np.nan]
    )
    assert made("outline").encode({"mask": "a.png"}).shape == (0,)


@pytest.mark.parametrize(
    ("event", "months", "expected"),
    [("1", "12", 1), ("1", "3", 1), ("1", "12.5", 0), ("0", "12", 0), ("0", "40", 0)],
)
def test_by_the_horizon_an_event_counts_and_follow_up_until_then_is_enough(
    event: str, months: str, expected: int
) -> None:
    row = {"event": event, "months": months}
    assert made("fixed_horizon").encode(row).tolist() == [expected]


@pytest.mark.parametrize("months", ["1e39", "-1", "soon"])
def test_a_time_that_no_network_could_hold_is_no_time(months: str) -> None:
    with pytest.raises(UnusableLabel, match="expected a time of 0 or more"):
        made("free").encode({"event": "1", "months": months})


@given(st.floats(0, 60, allow_subnormal=False), st.sampled_from([0.0, 1.0]))
def test_an_event_is_in_one_interval_and_nobody_is_at_risk_after_it(
    time: float, event: float
) -> None:
    target = encode_time(time, event, EDGES)
    hit, at_risk = target[:4], target[4:8]
    inside = int(event == 1 and time <= EDGES[-1])
    assert hit.sum() == inside
    assert (hit <= at_risk).all()
    # At risk from the start, without gaps.
    assert (np.diff(at_risk) <= 0).all()
    assert target[8:].tolist() == [np.float32(time), event]
    if inside:
        assert at_risk.sum() == hit.argmax() + 1


def test_censoring_counts_as_survival_of_an_interval_of_which_half_had_passed() -> None:
    survived = {0.0: 0, 1.4: 0, 1.5: 1, 3.0: 1, 8.9: 2, 9.0: 3, 99.0: 4}
    found = {time: encode_time(time, 0.0, EDGES)[4:8].sum() for time in survived}
    assert found == survived


@pytest.mark.parametrize(("time", "interval"), [(0.0, 0), (3.0, 0), (3.1, 1), (24.0, 3)])
def test_an_event_at_an_edge_is_in_the_interval_that_ends_there(time: float, interval: int) -> None:
    assert encode_time(time, 1.0, EDGES)[:4].argmax() == interval


def test_tasks_say_what_they_need() -> None:
    needs = {
        kind: (made(kind).outputs, made(kind).metric, made(kind).columns())
        for kind in ("binary", "multiclass", "multilabel", "proportional", "free", "outlines")
    }
    assert needs == {
        "binary": (1, "auroc", ("ill",)),
        "multiclass": (3, "macro_auroc", ("kind",)),
        "multilabel": (2, "macro_auroc", ("wet", "cold")),
        "proportional": (1, "concordance", ("event", "months")),
        "free": (4, "concordance", ("event", "months")),
        "outlines": (3, "dice", ("mask",)),
    }


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_target_is_counted_in_one_row_of_each_table_that_describes_a_cohort(kind: str) -> None:
    tables = config_of(kind).outcome_tables
    for target in outputs_and_targets(kind, 40)[1].numpy():
        found = made(kind).outcome_rows(target)
        assert all(row in rows for row, rows in zip(found, tables.values(), strict=True))


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_task_says_of_its_predictions_is_what_it_predicts(kind: str) -> None:
    config, task = config_of(kind), made(kind)
    output, _ = outputs_and_targets(kind, 5)
    prediction = task.predict(output)
    assert task.columns() == config.outcome_columns
    read = {*config.two_valued, *config.named_values, *config.number_columns}
    assert read <= set(config.outcome_columns)
    match config.predicts:
        case LabelProbabilities(exclusive=exclusive):
            assert read == set(config.outcome_columns)
            assert prediction.shape == (5, len(config.labels)) == (5, len(config.wordings))
            together = prediction.sum(dim=1)
            assert not exclusive or torch.allclose(together, torch.ones(5))
            classes = [name for names in config.alternatives for name in names]
            assert len(classes) == len(config.labels) * (1 if exclusive else 2)
        case SurvivalCurve(times=times):
            assert prediction.shape == (5, len(times)) == (5, len(config.labels))
            assert bool((prediction.diff(dim=1) <= 0).all())
        case IncidenceCurves(causes=causes, times=times):
            assert prediction.shape == (5, len(causes) * len(times)) == (5, len(config.labels))
            assert len(config.wordings) == len(config.labels)
        case BoundedNumber(low=low, high=high):
            assert read == set(config.outcome_columns)
            assert prediction.shape == (5, 1) == (5, len(config.labels))
            assert bool(((prediction >= low) & (prediction <= high)).all())
        case _:
            assert config.outlines
            assert int(prediction.max()) < len(config.labels)
