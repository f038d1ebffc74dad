"""From a network's grid back to the frames that a study was sent as.

`common.data.resampling.fit` resamples, stretches, pads and crops; `client.dicom.reading.volume`
orders slices and turns planes. Both are undone here, step by step, so that every voxel of an answer
lies on the source pixel that the network saw it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dicom.reading.read import Header
from client.dicom.reading.volume import Turn, order_slices, turn_of
from common.config.run_config import Images
from common.data.resampling import even_shape, letterboxed, resize

_UNTURNED = Turn(transposed=False, flipped=())


@dataclass(frozen=True, kw_only=True)
class FrameOrigin:
    """Where an image that a network takes comes from."""

    sources: tuple[Path, ...]  # DICOM files; of a series, in the order of its slices
    frames: tuple[int, ...]  # of each source
    planes: tuple[tuple[int, int], ...]  # (source, frame) of each slice; one for a 2-D image
    turn: Turn  # of rows and columns, on the way to the network
    shape: tuple[int, ...]  # ([slices,] rows, columns) as they were prepared: turned
    spacing: tuple[float, ...] | None  # mm along those axes; in 2-D their ratio alone counts


def flat_place(source: Path, header: Header, frame: int) -> FrameOrigin:
    """Return the place of one frame, which is prepared as it was sent."""
    return FrameOrigin(
        sources=(source,),
        frames=(header.frames,),
        planes=((0, frame),),
        turn=_UNTURNED,
        shape=header.shape,
        spacing=header.pixel,
    )


def volume_place(
    parts: Sequence[tuple[Path, Header]], shape: tuple[int, ...], spacing: tuple[float, ...] | None
) -> FrameOrigin:
    """Return the place of a series' volume, in the order in which `stack_slices` stacks it.

    shape and spacing are the volume's, after it was turned.
    """
    slices = [(part, frame) for part, (_, h) in enumerate(parts) for frame in range(h.frames)]
    order, scanned = order_slices([(parts[part][1], frame) for part, frame in slices])
    chosen = [slices[i] for i in order]
    position = {part: place for place, part in enumerate(dict.fromkeys(p for p, _ in chosen))}
    return FrameOrigin(
        sources=tuple(parts[part][0] for part in position),
        frames=tuple(parts[part][1].frames for part in position),
        planes=tuple((position[part], frame) for part, frame in chosen),
        turn=turn_of(scanned.affine[:3, 1], scanned.affine[:3, 2]),
        shape=shape,
        spacing=spacing,
    )


def unturned(planes: NDArray[np.generic], turn: Turn) -> NDArray[np.generic]:
    """Return (slices, rows, columns) as they were before `Turn.values`."""
    back = np.flip(planes, turn.flipped)
    return np.ascontiguousarray(back.swapaxes(1, 2) if turn.transposed else back)


def unfit(values: Tensor, place: FrameOrigin, rules: Images) -> Tensor:
    """Bring (channels, *size) back to (channels, *place.shape), linearly; 0 where nothing was seen.

    The inverse of `common.data.resampling.fit`: what was padded is cut off, what was cropped is
    0.
    """
    return resize(_uncrop(values, _inner(place, rules)), place.shape, nearest=False)


def _inner(place: FrameOrigin, rules: Images) -> tuple[int, ...]:
    """Return the shape that the image has on the network's grid before it is padded or cropped.

    Every step before that keeps the field of view, so one step leads back from there.
    """
    shape = even_shape(place.shape, place.spacing, rules)
    if rules.patch is not None:
        return shape
    match rules.fit:
        case "stretch":
            return tuple(rules.size)
        case "crop":
            return shape
        case "letterbox":
            return letterboxed(shape, place.spacing, rules)


def _uncrop(values: Tensor, inner: tuple[int, ...]) -> Tensor:
    """Undo `pad_or_crop`: (channels, *size) -> (channels, *inner)."""
    for axis, wanted in enumerate(inner, 1):
        held = values.shape[axis]
        if held > wanted:  # zeros were put around it
            values = values.narrow(axis, (held - wanted) // 2, wanted)
        elif held < wanted:  # its middle was taken
            whole = values.new_zeros((*values.shape[:axis], wanted, *values.shape[axis + 1 :]))
            whole.narrow(axis, (wanted - held) // 2, held).copy_(values)
            values = whole
    return values


def source_labels(output: Tensor, place: FrameOrigin, rules: Images) -> NDArray[np.uint8]:
    """Return (planes, rows, columns) labels, as sent, from logits (labels, *size).

    Probabilities are brought back and the largest wins: outlines come out finer than the
    network's grid. What the network did not see is background.
    """
    best = torch.zeros(place.shape)
    labels = torch.zeros(place.shape, dtype=torch.uint8)
    for number, probability in enumerate(output.softmax(dim=0)):
        # One label at a time: all of them on a large CT's own grid would fill the memory.
        found = unfit(probability[None], place, rules)[0]
        if number == 0:  # unseen: nothing else is probable there either
            best = found
            continue
        wins = found > best
        labels[wins] = number
        best = torch.where(wins, found, best)
    return by_frame(labels.numpy(), place)


def by_frame(values: NDArray[np.uint8], place: FrameOrigin) -> NDArray[np.uint8]:
    """Return (source frames, rows, columns) of ([slices,] rows, columns), as they were sent.

    Frames of a source that were not part of the image are 0.
    """
    planes = unturned(values if values.ndim == 3 else values[None], place.turn)
    start = np.cumsum((0, *place.frames))
    found = np.zeros((int(start[-1]), *planes.shape[1:]), np.uint8)
    for plane, (source, frame) in zip(planes, place.planes, strict=True):
        found[start[source] + frame] = plane
    return found


def by_place(frames: NDArray[np.uint8], place: FrameOrigin) -> NDArray[np.uint8]:
    """Return (slices, rows, columns) of (source frames, rows, columns): undo `by_frame`."""
    start = np.cumsum((0, *place.frames))
    planes = [frames[start[source] + frame] for source, frame in place.planes]
    return place.turn.values(np.stack(planes)).astype(np.uint8, copy=False)


def strongest_plane(
    values: Tensor, place: FrameOrigin, rules: Images
) -> tuple[NDArray[np.float32], int, int]:
    """Return a map (*size) on the plane where it is strongest, that plane's source and frame."""
    whole = unfit(values[None].float(), place, rules)[0].numpy()
    planes = unturned(whole if whole.ndim == 3 else whole[None], place.turn).astype(np.float32)
    strongest = int(planes.reshape(len(planes), -1).sum(axis=1).argmax())
    source, frame = place.planes[strongest]
    return planes[strongest], source, frame
