"""Which side of the patient is at each side of an image (PS3.3 C.7.6.1.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from client.dicom.reading.read import Cosines, Header

_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "H": "F", "F": "H"}
#: Letters of a patient's axes where they rise (PS3.3 C.7.6.2.1.1).
_RISING = "LPH"
#: A direction that leans less than about 15 degrees to an axis has no letter of it.
_LEAST = 0.25


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Letters at the sides of an image: left, right, posterior, anterior, head, foot."""

    right: str
    bottom: str

    @property
    def left(self) -> str:
        """What is at the left of the image; of a usual axial slice the patient's right."""
        return _opposite(self.right)

    @property
    def top(self) -> str:
        """What is at the top of the image."""
        return _opposite(self.bottom)


def sides_of(header: Dataset, read: Header, frame: int) -> Sides | None:
    """Return the sides of a frame, from 0; None where its header does not tell them."""
    if frame < len(read.orientations):
        return _by_cosines(read.orientations[frame])
    given = header.get("PatientOrientation") or ()
    if isinstance(given, str) or len(given) != 2:
        return None
    right, bottom = (str(side) for side in given)
    if not right or not bottom or set(right + bottom) - _OPPOSITE.keys():
        return None  # of an animal, or no letters at all
    return Sides(right=right, bottom=bottom)


def _by_cosines(cosines: Cosines) -> Sides:
    return Sides(right=_letters(cosines[:3]), bottom=_letters(cosines[3:]))


def _letters(direction: Sequence[float]) -> str:
    """Return the letters that a direction points to, the nearest axis first."""
    found = sorted(zip(direction, _RISING, strict=True), key=lambda one: -abs(one[0]))
    return "".join(
        letter if part > 0 else _OPPOSITE[letter] for part, letter in found if abs(part) >= _LEAST
    )


def _opposite(letters: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in letters)
