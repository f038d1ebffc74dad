"""Tensors as frames of bytes: compressed, resent one by one.

A frame holds up to half a million consecutive values of all tensors laid end to end.

    raw        float32 as it lies in memory
    lossless   the same bits; bytes of equal weight side by side, then Zstandard
    float16    IEEE 754 binary16, to the nearest: errs by at most 2^-11 of a value, or by 2^-25
               where a value is below 2^-14
    int8       blocks of 256 values on a grid of 1/127 of the largest among them (Dettmers et al.
               2022, section 2.1): errs by at most 1/254 of that largest value

Under privacy noise is in the values before they are packed, so rounding is post-processing and
costs none. Packing the same values gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from common.platform.errors import AnswerNotAdmitted

if TYPE_CHECKING:  # as in wire.py
    import torch

    from common.data.weights import Weights

Encoding = Literal["raw", "lossless", "float16", "int8"]
Floats = NDArray[np.float32]
#: Name and shape of each tensor, in the order in which they lie in the frames.
Layout = Sequence[tuple[str, Sequence[int]]]

#: Values of a frame: 2 MiB of float32, well under the 5 MiB that Flower sends as one object; the
#: service copies an object a dozen times on its way.
FRAME_VALUES = 1 << 19
_BLOCK = 256
#: Values of a tensor, that it can be counted in 64 bits.
_LONGEST = 1 << 62
#: Zstandard's fast end: noise-like mantissas gain nothing from a slower level.
_LEVEL = 1


def layout_of(weights: Weights) -> list[tuple[str, list[int]]]:
    """Return name and shape of each tensor."""
    return [(name, list(value.shape)) for name, value in weights.items()]


def pack(weights: Weights, encoding: Encoding) -> Iterator[bytes]:
    """Yield the frames of float32 tensors; one frame is in memory at a time.

    AnswerNotAdmitted where a value cannot be written in the encoding.
    """
    for values in _in_frames(weights):
        yield _encode(values, encoding)


def unpack(layout: Layout, frames: Iterable[bytes], encoding: Encoding) -> dict[str, torch.Tensor]:
    """Return the tensors; AnswerNotAdmitted unless the frames hold exactly as many values.

    Memory is taken as values arrive, never by what a layout claims.
    """
    import torch

    source = Unpacking(layout, frames, encoding)
    found = {}
    for (name, shape), size in zip(layout, source.sizes, strict=True):
        found[name] = torch.from_numpy(source.take(size)).reshape(tuple(shape))
    source.check_empty()
    return found


class Unpacking:
    """The values of frames, taken in pieces of any length."""

    def __init__(self, layout: Layout, frames: Iterable[bytes], encoding: Encoding) -> None:
        """AnswerNotAdmitted for a layout of no tensors of ours."""
        if len({name for name, _ in layout}) < len(layout):
            raise AnswerNotAdmitted("Two tensors have one name.")
        self.sizes = [_count(name, shape) for name, shape in layout]
        self._frames = iter(frames)
        self._encoding = encoding
        self._expected = sum(self.sizes)
        self._left = self._expected  # values that no frame has brought yet
        self._rest: Floats = np.zeros(0, np.float32)

    def take(self, count: int) -> Floats:
        """Return the next values; pieces are joined once all of them are here."""
        parts: list[Floats] = []
        while count > 0:
            if not self._rest.size:
                self._rest = self._next()
            part, self._rest = self._rest[:count], self._rest[count:]
            parts.append(part)
            count -= part.size
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def check_empty(self) -> None:
        """Raise AnswerNotAdmitted when there are more frames than values asked for."""
        if self._left or next(self._frames, None) is not None:
            raise self._fault("more frames")

    def _next(self) -> Floats:
        frame = next(self._frames, None)
        if frame is None:
            raise self._fault("fewer frames")
        count = min(FRAME_VALUES, self._left)
        self._left -= count
        return decode(frame, self._encoding, count)

    def _fault(self, what: str) -> AnswerNotAdmitted:
        return AnswerNotAdmitted(f"Tensors came in {what} than their {self._expected} values fill.")


def _count(name: str, shape: Sequence[int]) -> int:
    count = extent = 1
    for length in shape:
        count *= length
        extent *= max(length, 1)  # torch computes with lengths beside a 0, too
        if length < 0 or extent > _LONGEST:
            message = f"Tensor {name} has the shape {tuple(shape)}."
            raise AnswerNotAdmitted(message)
    return count


def _in_frames(weights: Weights) -> Iterator[Floats]:
    """Yield all values end to end in frames of one length, the last one shorter."""
    import torch

    pending: list[Floats] = []
    held = 0
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32:
            message = f"Tensor {name} is {tensor.dtype}, expected torch.float32."
            raise AnswerNotAdmitted(message)
        values = tensor.detach().cpu().contiguous().numpy().reshape(-1)
        while values.size:
            part, values = values[: FRAME_VALUES - held], values[FRAME_VALUES - held :]
            pending.append(part)
            held += part.size
            if held == FRAME_VALUES:
                yield np.concatenate(pending)
                pending, held = [], 0
    if held:
        yield np.concatenate(pending)


def _encode(values: Floats, encoding: Encoding) -> bytes:
    values = values.astype("<f4", copy=False)
    match encoding:
        case "raw":
            return values.tobytes()
        case "lossless":
            return _squeeze(values.tobytes(), 4)
        case "float16":
            with np.errstate(over="ignore"):
                half = values.astype("<f2")
            if not np.array_equal(np.isfinite(half), np.isfinite(values)):
                message = "A value is above 65504, the largest of float16: take lossless."
                raise AnswerNotAdmitted(message)
            return _squeeze(half.tobytes(), 2)
        case "int8":
            return _to_int8(values)
    assert_never(encoding)


def decode(frame: bytes, encoding: Encoding, count: int) -> Floats:
    """Return `count` values; AnswerNotAdmitted for a frame of another length or none of ours."""
    content: bytes | NDArray[np.uint8]
    match encoding:
        case "raw":
            content, dtype = frame, "<f4"
        case "lossless":
            content, dtype = _stretch(frame, 4, 4 * count), "<f4"
        case "float16":
            content, dtype = _stretch(frame, 2, 2 * count), "<f2"
        case "int8":
            return _from_int8(frame, count)
        case _:
            assert_never(encoding)
    if len(content) != count * np.dtype(dtype).itemsize:
        raise _wrong_length(len(content), count)
    return np.frombuffer(content, dtype).astype(np.float32, copy=False)  # `take` copies


def _to_int8(values: Floats) -> bytes:
    if not np.isfinite(values).all():
        raise AnswerNotAdmitted("A value is not finite, so it has no place on an int8 grid.")
    padded = np.zeros(-(-values.size // _BLOCK) * _BLOCK, np.float32)
    padded[: values.size] = values
    blocks = padded.reshape(-1, _BLOCK)
    scales = (np.abs(blocks).max(axis=1) / np.float32(127)).astype("<f4")
    safe = np.where(scales > 0, scales, np.float32(1))
    steps = np.clip(np.rint(blocks / safe[:, None]), -127, 127).astype(np.int8)
    return _squeeze(scales.tobytes() + steps.reshape(-1)[: values.size].tobytes(), 1)


def _from_int8(frame: bytes, count: int) -> Floats:
    blocks = -(-count // _BLOCK)
    content = _stretch(frame, 1, 4 * blocks + count)
    scales = np.frombuffer(content, "<f4", blocks).astype(np.float32)
    steps = np.frombuffer(content, np.int8, count, 4 * blocks)
    return steps.astype(np.float32) * np.repeat(scales, _BLOCK)[:count]


def _wrong_length(length: int, count: int) -> AnswerNotAdmitted:
    return AnswerNotAdmitted(f"A frame of tensors has {length} bytes for {count} values.")


def _squeeze(content: bytes, width: int) -> bytes:
    """Return compressed bytes, those of equal weight in `width`-byte words side by side."""
    import imagecodecs

    if width > 1:
        content = _transposed(content, width)
    return bytes(imagecodecs.zstd_encode(content, level=_LEVEL))


def _stretch(frame: bytes, width: int, length: int) -> bytes | NDArray[np.uint8]:
    """Undo _squeeze; AnswerNotAdmitted where it is not `length` bytes, before more are made."""
    import imagecodecs

    try:
        # With room for exactly as many bytes: a frame that would grow further is an error.
        content = bytes(imagecodecs.zstd_decode(frame, out=length)) if length else b""
    except (imagecodecs.ZstdError, ValueError, TypeError) as error:
        message = f"A frame of tensors cannot be read: {error!s:.100}"
        raise AnswerNotAdmitted(message) from error
    if len(content) != length:
        message = f"A frame of tensors has {len(content)} bytes, expected {length}."
        raise AnswerNotAdmitted(message)
    return _transposed_back(content, width) if width > 1 else content


def _transposed(content: bytes, width: int) -> bytes:
    return np.frombuffer(content, np.uint8).reshape(-1, width).T.tobytes()


def _transposed_back(content: bytes, width: int) -> NDArray[np.uint8]:
    planes = np.frombuffer(content, np.uint8).reshape(width, -1)
    words = np.empty(planes.shape[::-1], np.uint8)
    for place, plane in enumerate(planes):  # numpy turns a whole table four times as slowly
        words[:, place] = plane
    return words.reshape(-1)
