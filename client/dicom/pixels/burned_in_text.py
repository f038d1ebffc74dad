"""Burned-in text, read in the pixels of an image; the text itself is not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.dicom.codec.compressed import Array

#: How sure the reader must be of a text, and how many letters make one.
_SURE = 0.6
_LETTERS = 3

_Picture: TypeAlias = NDArray[np.uint8]

#: Returns the texts in a picture, (rows, columns, 3).
ReadText = Callable[[_Picture], Sequence[str]]
#: Top, left, bottom and right of a text, in pixels.
Box = tuple[int, int, int, int]
#: Returns where there is text in a picture.
FindText = Callable[[_Picture], Sequence[Box]]


def text_reader() -> ReadText | None:
    """Return a reader of text (rapidocr-onnxruntime), or None where it is not installed.

    It finds clear print well and promises nothing: no tool finds all burned-in text.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        return None
    engine = RapidOCR()

    def read(picture: _Picture) -> Sequence[str]:
        found, _ = engine(picture)
        return [str(text) for _, text, sure in found or () if float(sure) >= _SURE]

    return read


def text_finder() -> FindText | None:
    """Return what finds where text stands, however unsure; None where no reader is installed."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        return None
    engine = RapidOCR(text_score=0.0)

    def find(picture: _Picture) -> Sequence[Box]:
        found, _ = engine(picture)
        return [
            _around(np.asarray(corners, float))
            for corners, text, _ in found or ()
            if any(map(str.isalnum, str(text)))
        ]

    return find


def _around(corners: NDArray[np.float64]) -> Box:
    left, top = np.floor(corners.min(axis=0))
    right, bottom = np.ceil(corners.max(axis=0))
    return int(top), int(left), int(bottom), int(right)


def pieces_of_text(frame: Array, read_text: ReadText) -> int:
    """Return how many pieces of text are read in one frame."""
    return sum(sum(map(str.isalnum, text)) >= _LETTERS for text in read_text(picture_of(frame)))


def picture_of(frame: Array) -> _Picture:
    """Return one frame stretched to 8 bits, (rows, columns, 3)."""
    low, high = float(frame.min()), float(frame.max())
    scaled = (frame.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    grey = scaled.astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
