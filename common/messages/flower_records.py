"""Messages as Flower's records, for sites on one machine.

Reading one never runs code of the sender's, and refuses what is not exactly a message.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.data.weights import Weights
from common.messages.message_header import message_of, parts_of
from common.messages.wire import Message
from common.platform.errors import AnswerNotAdmitted, WardroundError

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, RecordDict

#: How a tensor's bytes are to be read; Flower's own form carries a pickled header of numpy's.
_TENSOR = "float32-little-endian"
_HEADER = "message"


def to_record(message: Message) -> RecordDict:
    """Return a message as Flower sends it."""
    from flwr.app import ConfigRecord, RecordDict

    header, tensors = parts_of(message)
    record = RecordDict({_HEADER: ConfigRecord({"json": header})})
    for name, weights in tensors.items():
        record[name] = to_arrays(weights)
    return record


def from_record(record: RecordDict) -> Message:
    """Read what to_record made; AnswerNotAdmitted says what is no message of ours."""
    try:
        header = str(record.config_records[_HEADER]["json"])
        tensors = {name: from_arrays(arrays) for name, arrays in record.array_records.items()}
        return message_of(header, tensors)
    except (KeyError, TypeError, ValueError, WardroundError) as error:
        message = f"A message from Flower cannot be read: {error!s:.300}. Is its sender ours?"
        raise AnswerNotAdmitted(message) from error


def to_arrays(weights: Weights) -> ArrayRecord:
    """Return tensors as Flower sends them, bit for bit."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord(
        {
            name: Array(
                dtype="float32",
                shape=tuple(value.shape),
                stype=_TENSOR,
                data=value.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes(),
            )
            for name, value in weights.items()
        }
    )


def from_arrays(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    """Read what to_arrays made; ValueError for another form, or another number of bytes."""
    found = {}
    for name, array in arrays.items():
        if (array.stype, array.dtype) != (_TENSOR, "float32"):
            message = f"tensor {name} has the form {array.stype} {array.dtype}, expected {_TENSOR}"
            raise ValueError(message)
        shape = tuple(array.shape)
        if any(length < 0 for length in shape) or len(array.data) != 4 * math.prod(shape):
            message = f"tensor {name} has {len(array.data)} bytes for the shape {shape}"
            raise ValueError(message)
        values = np.frombuffer(array.data, "<f4").astype(np.float32)  # a copy: theirs is read-only
        found[name] = torch.from_numpy(values).reshape(shape)
    return found
