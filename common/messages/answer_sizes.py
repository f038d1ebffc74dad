"""Largest size of the answer to each kind of request.

A site that answers a proposal with hundreds of megabytes would fill the coordinator's disk twice:
the limits are checked on the size that is announced, before anything is stored, and on what comes.

    standing, refusal   80 KiB      a few numbers, a signature, a receipt of the site's records
    cohort              1 MiB       tables of counts
    report              4 MiB, and 1 MiB for each output of the task
    update              what the shared weights take uncompressed, and 128 KiB
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from common.config.run_config import RunConfig
from common.messages.packing import FRAME_VALUES
from common.messages.receipt import LARGEST_RECEIPT
from common.messages.wire import (
    EvaluationRequest,
    Proposal,
    Request,
    StatisticsRequest,
    TrainRequest,
)

if TYPE_CHECKING:  # as in wire.py
    from common.data.weights import Weights

KIB = 1024
MIB = 1024 * KIB
SMALL_ANSWER = 16 * KIB + LARGEST_RECEIPT
_COHORT = MIB
_REPORT, _REPORT_BY_OUTPUT = 4 * MIB, MIB
#: Of an update, beside its values: header, signature, and what Flower adds for each object.
_BESIDE, _BESIDE_A_FRAME, _BESIDE_A_TENSOR = 64 * KIB + LARGEST_RECEIPT, 4 * KIB, 512
#: Zstandard makes what it cannot compress longer by less than a hundredth.
_GROWTH = 1.01
#: One object of an answer or a request: a frame, and what Flower adds.
LARGEST_OBJECT = 8 * MIB


def largest_answer(request: Request) -> int:
    """Return the bytes that all objects of an answer to this request may have together."""
    match request:
        case Proposal():
            return SMALL_ANSWER
        case StatisticsRequest():
            return _COHORT
        case EvaluationRequest(config=config):
            return _REPORT + _outputs(config) * _REPORT_BY_OUTPUT
        case TrainRequest(weights=weights, control=control):
            return max(SMALL_ANSWER, tensor_bytes(weights) + tensor_bytes(control or {}))
    assert_never(request)


def tensor_bytes(weights: Weights) -> int:
    """Return the most that tensors of these shapes take in a message."""
    values = sum(tensor.numel() for tensor in weights.values())
    frames = -(-values // FRAME_VALUES) + 1
    beside = _BESIDE + frames * _BESIDE_A_FRAME + len(weights) * _BESIDE_A_TENSOR
    return int(4 * values * _GROWTH) + beside


def _outputs(config: RunConfig) -> int:
    from common.tasks import task_of

    return task_of(config.task).outputs
