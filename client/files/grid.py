"""The grid of an image in a file: how many values, and where they lie.

Public: FileGrid.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.dicom.reading.read import Cosines, Position


@dataclass(frozen=True, kw_only=True)
class FileGrid:
    """Frames of one size, as a DICOM header tells them."""

    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    bits: int = 8  # of a value
    spacing: tuple[float, float] | None = None  # row and column distance in mm
    positions: tuple[Position, ...] = ()  # of each frame, mm (LPS)
    orientations: tuple[Cosines, ...] = ()  # of each frame
    aspect: float = 1.0  # height of a pixel over its width, where spacing is None
    times: int = 1  # frames are those of the first time, then those of the next
    space: str = ""  # what the positions are measured in: patient, or an atlas
