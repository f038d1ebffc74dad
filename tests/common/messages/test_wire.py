from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from common.config.run_config import parse_config
from common.messages.cohort_statistics import CohortStatistics, StatisticsTable
from common.messages.flower_records import from_record, to_record
from common.messages.wire import (
    EvaluationRequest,
    Message,
    Refusal,
    RefusalReason,
    SiteReport,
    SiteStatistics,
    SiteUpdate,
    StatisticsRequest,
    TrainRequest,
)
from common.metrics.statistics import Statistics
from common.platform.errors import AnswerNotAdmitted
from common.privacy.plan import LedgerHead, Mechanism, Spend

CONFIG = parse_config("""
name: wire
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}}
model: {network: small_cnn}
training: {rounds: 2, local_steps: 1, batch_patients: 4}
privacy: none
""")
SPEND = Spend(
    mechanism=Mechanism(
        noise_multiplier=1.5, sampling_rate=0.1, steps=3, clip_norm=1.0, divisor=10.0
    ),
    run_epsilon=0.5,
    run_delta=1e-5,
    cohort_epsilon=0.75,
    cohort_delta=2e-5,
    ledger=LedgerHead(charges=3, hash="ab" * 32),
    simulated_noise=True,
)
WEIGHTS = {
    "scalar": torch.tensor(1e-40),  # a denormal number
    "empty": torch.zeros(0, 3),
    "odd": torch.tensor([[float("nan"), -0.0], [float("inf"), 3.0]]),
}
MESSAGES: tuple[Message, ...] = (
    TrainRequest(run="r", round=1, seed=7, config=CONFIG, weights=WEIGHTS),
    TrainRequest(run="r", round=2, seed=7, config=CONFIG, weights=WEIGHTS, control=WEIGHTS),
    EvaluationRequest(run="r", round=2, seed=7, config=CONFIG, weights=WEIGHTS, split="validation"),
    SiteUpdate(run="r", round=1, site="north", delta=WEIGHTS, steps=4, spend=SPEND),
    SiteUpdate(run="r", round=1, site="north", delta=WEIGHTS, control_delta=WEIGHTS, steps=4),
    SiteReport(
        run="r",
        round=1,
        site="north",
        spend=SPEND,
        statistics=Statistics(
            patients=np.array(12.0),
            cells={"positive": np.array([[1.0, 5.0]])},
            sums={"loss": np.array(0.1)},
        ),
    ),
    StatisticsRequest(run="r", round=0, seed=7, config=CONFIG),
    SiteStatistics(
        run="r",
        round=0,
        site="north",
        spend=SPEND,
        statistics=CohortStatistics(
            smallest=5,
            noise=1.5,
            tables={
                "left out": StatisticsTable(
                    unit="studies", rows={"BLANK": 6.0, "DECODE_ERROR": None}
                )
            },
        ),
    ),
    Refusal(run="r", round=1, site="north", reason=RefusalReason.BUDGET),
)


def sent(message: Message) -> Message:
    """Return a message after Flower packed and unpacked it, as between processes."""
    record = to_record(message)
    return from_record(
        RecordDict.inflate(
            record.deflate(), {child.object_id: child for child in record.children.values()}
        )
    )


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    found = sent(message)
    assert repr(found) == repr(message)  # nan is like nan there, and every field is shown


@given(st.lists(st.floats(width=32), max_size=9))
def test_tensors_arrive_bit_for_bit(values: list[float]) -> None:
    request = replace(MESSAGES[0], weights={"w": torch.tensor(values, dtype=torch.float32)})
    found = from_record(to_record(request))
    assert isinstance(found, TrainRequest)
    expected = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(found.weights["w"].view(torch.int32), expected.view(torch.int32))


def test_received_tensors_can_be_changed_without_a_warning() -> None:
    found = from_record(to_record(MESSAGES[0]))
    assert isinstance(found, TrainRequest)
    found.weights["odd"].mul_(2)


def array(dtype: str = "float32", shape: tuple[int, ...] = (2,), data: bytes = bytes(8)) -> Array:
    return Array(dtype=dtype, shape=shape, stype="float32-little-endian", data=data)


@pytest.mark.parametrize(
    "bad",
    [
        array(shape=(3,)),
        array(shape=(-2, -1)),
        array(data=bytes(7)),
        array(dtype="float64", shape=(1,)),
        Array(np.zeros(2, np.float32)),  # numpy's own form, which has a header to be parsed
        Array(dtype="float32", shape=(2,), stype="pickle", data=bytes(8)),
    ],
)
def test_a_tensor_of_another_form_is_refused(bad: Array) -> None:
    record = to_record(MESSAGES[3])
    record["delta"] = ArrayRecord({"w": bad})
    with pytest.raises(AnswerNotAdmitted, match="tensor w"):
        from_record(record)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"kind": "update"}',
        '{"kind": "surprise", "run": "r", "round": 1}',
        '{"kind": "refusal", "run": "r", "round": 1, "site": "s", "reason": "BECAUSE"}',
        '{"kind": "refusal", "run": "r", "round": -1, "site": "s", "reason": "BUDGET"}',
        '{"kind": "refusal", "run": "r", "round": "1", "site": "s", "reason": "BUDGET"}',
        '{"kind": "refusal", "run": "r", "round": 1, "site": "s", "reason": "BUDGET", "more": 1}',
        '{"kind": "report", "run": "r", "round": 1, "site": "s", "spend": null, "statistics": {}}',
        '{"kind": "train", "run": "r", "round": 1, "seed": 0, "config": "{}", "controlled": false}',
    ],
)
def test_what_is_no_message_is_refused(header: str) -> None:
    record = to_record(MESSAGES[0])
    record["message"] = ConfigRecord({"json": header})
    with pytest.raises(AnswerNotAdmitted, match="cannot be read"):
        from_record(record)


def test_a_message_without_its_tensors_or_header_is_refused() -> None:
    for name in ("delta", "message"):
        record = to_record(MESSAGES[3])
        del record[name]
        with pytest.raises(AnswerNotAdmitted):
            from_record(record)


def test_a_spend_that_no_accountant_can_bound_is_refused() -> None:
    record = to_record(MESSAGES[3])
    text = str(record.config_records["message"]["json"])
    record["message"] = ConfigRecord({"json": text.replace('"steps":3', '"steps":-3')})
    with pytest.raises(AnswerNotAdmitted):
        from_record(record)
