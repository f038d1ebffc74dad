"""Stains brought to one public colour, slide by slide (Macenko et al. 2009).

Fitted on the slide alone: what a slide becomes follows from no other patient, and nothing of a
cohort is released. The targets are the constants that the method's implementations share.

Public: Stain, stain_of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.slides.frames import Rgb

_Matrix = NDArray[np.float64]

#: Optical density of haematoxylin and eosin, by red, green and blue, and how much there is of each.
_TARGET: _Matrix = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
_TARGET_MOST: _Matrix = np.array([1.9705, 1.0308])
_LIGHT = 240.0
#: Less than this is glass.
_LEAST_DENSITY = 0.15
_PERCENT, _MOST_PERCENT = 1.0, 99.0
_FEWEST_PIXELS = 100


@dataclass(frozen=True, kw_only=True)
class Stain:
    """How one slide's colours become those of the target."""

    own: _Matrix  # (3, 2) optical density of the slide's two stains
    most: _Matrix  # (2,) how much there is of each

    def applied(self, colours: Rgb) -> Rgb:
        """Return a tile in the target's colours."""
        density = _density(colours)
        amounts = np.linalg.lstsq(self.own, density.T, rcond=None)[0]
        amounts *= (_TARGET_MOST / self.most)[:, None]
        found = _LIGHT * np.exp(-(_TARGET @ amounts)).T.reshape(colours.shape)
        return np.asarray(np.clip(np.rint(found), 0, 255), np.uint8)


def stain_of(tiles: Sequence[Rgb]) -> Stain | None:
    """Return a slide's stains from some of its tiles; None where there is too little of them."""
    density = np.concatenate([_density(tile) for tile in tiles] or [np.zeros((0, 3))])
    density = density[(density > _LEAST_DENSITY).all(axis=1)]
    if len(density) < _FEWEST_PIXELS:
        return None
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, :0:-1]
    plane *= np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    seen = density @ plane
    angles = np.arctan2(seen[:, 1], seen[:, 0])
    low, high = np.percentile(angles, (_PERCENT, 100 - _PERCENT))
    first, second = (plane @ np.array([np.cos(a), np.sin(a)]) for a in (low, high))
    # Haematoxylin is the redder one in density: it takes more of the red light.
    own = np.stack([first, second] if first[0] > second[0] else [second, first], axis=1)
    amounts = np.linalg.lstsq(own, density.T, rcond=None)[0]
    most = np.percentile(amounts, _MOST_PERCENT, axis=1)
    if not np.isfinite(most).all() or most.min() <= 1e-3:
        return None
    return Stain(own=own, most=most)


def _density(colours: Rgb) -> _Matrix:
    light = np.maximum(colours.reshape(-1, 3).astype(np.float64), 1.0)
    return np.maximum(-np.log(light / _LIGHT), 0.0)
