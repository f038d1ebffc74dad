"""Text burned into a picture, blanked where it is read; a person looks at what became of it.

Guarantee: no text is read any more in what comes out, else the image is refused. Not guaranteed:
that the reader saw all of it. No reader does, so an image that is likely to show text is released
only once a person has looked at it before and after (`--pixels-checked`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.dicom.pixels.burned_in_text import Box, FindText, picture_of
from client.dicom.reasons import Reason, UnusableFile

_Pixels: TypeAlias = NDArray[np.generic]
#: What is blanked at a first look may have hidden other text, as of lower contrast.
_LOOKS = 4
#: Beyond a box on each side, of its height: outlines of letters and shadows.
_MARGIN = 0.3


@dataclass(frozen=True, kw_only=True)
class BlankedFrame:
    """A frame in which text was blanked, for a person to look at."""

    before: NDArray[np.uint8]  # (rows, columns, 3)
    after: NDArray[np.uint8]
    boxes: int


def blank_text(frames: _Pixels, find: FindText, show: Callable[[BlankedFrame], None]) -> _Pixels:
    """Return frames, (frames, rows, columns[, 3]), without text that is read in them."""
    blanked = frames.copy()
    for number, frame in enumerate(blanked):
        before, boxes = picture_of(frame), 0
        for _ in range(_LOOKS):
            found = find(picture_of(frame))
            if not found:
                break
            for box in found:
                _blank(frame, box)
            boxes += len(found)
        else:
            detail = f"text is still read in frame {number + 1} after it was blanked"
            raise UnusableFile(Reason.BURNED_IN_SUSPECT, detail)
        if boxes:
            show(BlankedFrame(before=before, after=picture_of(frame), boxes=boxes))
    return blanked


def _blank(frame: _Pixels, box: Box) -> None:
    """Give a box the frame's lowest value, in place."""
    top, left, bottom, right = box
    margin = max(2, round(_MARGIN * (bottom - top)))
    rows = slice(max(top - margin, 0), bottom + margin)
    columns = slice(max(left - margin, 0), right + margin)
    frame[rows, columns] = frame.min()
