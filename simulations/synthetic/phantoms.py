"""Invented images: chests and livers with a lesion.

Coordinates run from -1 to 1 over the image, x to the right (the patient's left), y down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulations.synthetic.scanners import Float, Real, as_float32

Mask = NDArray[np.uint8]

#: A lesion's outline has this many lobes, one sine each.
_LOBES = (2, 3, 5)
_LUNG_X, _LUNG_Y = 0.42, -0.12
_LIVER_X, _LIVER_Y = -0.38, -0.06


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """Where a lesion sits and how it looks."""

    left: bool  # which lung, by the side of the picture; the liver has one side
    across: float  # -1 to 1 within the organ
    along: float  # -1 to 1 within the organ
    depth: float  # 0 to 1 along the slices; ignored in 2-D
    radius: float  # in parts of the picture's height
    irregularity: float  # 0 is a disc, 1 a strongly lobed outline
    sharpness: float  # 1 is a clear border, 0 a gradual one
    contrast: float  # 0 to 1; X-ray: added thickness, CT: hundreds of HU below the liver
    phases: tuple[float, float, float]  # of the lobes, in radians


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """How this body differs from the average; 1 is average, 0 for angles and shifts."""

    width: float
    lungs: float
    heart: float
    ribs: float  # phase, 0 to 1
    density: float


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the patient stood or lay for this picture."""

    right: float
    down: float
    zoom: float


def chest(
    size: int, anatomy: Anatomy, lesions: Sequence[Lesion], pose: Pose, rng: np.random.Generator
) -> tuple[Float, Mask]:
    """Return an X-ray-like picture (size, size) in 0 to 1, bright is dense, and the lesion mask."""
    x, y = _grid(size, pose)
    thick = _trunk(x / anatomy.width, y)
    lung = _lung(x, y, anatomy, -1) + _lung(x, y, anatomy, 1)
    # Where the heart and the arch of the aorta lie in front, less air is in the way.
    lung *= 1 - 0.85 * _heart(x, y, anatomy)
    thick *= 1 - 0.74 * lung
    thick += lung * (_hila(x, y) + 0.13 * _ribs(x, y, anatomy))
    thick += _spine_and_clavicles(x, y)
    mask = np.zeros((size, size), np.uint8)
    for lesion in lesions:
        side = -1 if lesion.left else 1
        inside = _lobed(
            x - (side * _LUNG_X + 0.12 * lesion.across), y - (_LUNG_Y + 0.33 * lesion.along), lesion
        )
        thick += lesion.contrast * _soft(inside, 1.05 - lesion.sharpness)
        mask |= inside > 0
    thick *= 1 + texture((size, size), 0.05, rng)
    # Beer-Lambert: what a thickness lets through falls off exponentially.
    return as_float32(1 - np.exp(-1.35 * anatomy.density * thick)), mask


def body(
    shape: tuple[int, int, int],
    aspect: float,
    anatomy: Anatomy,
    lesions: Sequence[Lesion],
    pose: Pose,
    rng: np.random.Generator,
) -> tuple[Float, Mask]:
    """Return CT-like Hounsfield units (slices, rows, columns) and the lesion mask.

    aspect is the distance of slices in units of the distance of pixels.
    """
    slices, size, _ = shape
    x, y = _grid(size, pose)
    flat, organs = _abdomen(x / anatomy.width, y, anatomy)
    level = (np.arange(slices, dtype=np.float32) + 0.5) / slices
    # The first slice is the lowest. Spleen above, kidneys below: one weight a slice.
    upper = _soft(level - 0.25, 0.3)[:, None, None]
    lower = _soft(0.7 - level, 0.3)[:, None, None]
    volume = flat + upper * organs[0] + lower * organs[1]
    mask = np.zeros(shape, np.uint8)
    for lesion in lesions:
        away = (level - lesion.depth) * slices * aspect * 2 / size
        for index in np.flatnonzero(np.abs(away) < 4 * lesion.radius):  # lobes reach beyond
            inside = _lobed(
                x - (_LIVER_X + 0.14 * lesion.across),
                y - (_LIVER_Y + 0.16 * lesion.along),
                lesion,
                float(away[index]),
            )
            volume[index] -= 250 * lesion.contrast * _soft(inside, 1.05 - lesion.sharpness)
            mask[index] |= inside > 0
    tissue = (flat > -300).astype(np.float32)
    return as_float32(volume + tissue * texture(shape, 15, rng)), mask


def texture(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> Float:
    """Return the mottle of soft tissue: noise on an eight times coarser grid, interpolated."""
    rows, columns = shape[-2:]
    small = (*shape[:-2], rows // 8 + 2, columns // 8 + 2)
    coarse = np.float32(deviation) * rng.standard_normal(small, dtype=np.float32)
    row, down = _between(rows)
    column, right = _between(columns)
    tall = coarse[..., row, :] * (1 - down[:, None]) + coarse[..., row + 1, :] * down[:, None]
    return as_float32(tall[..., column] * (1 - right) + tall[..., column + 1] * right)


@lru_cache
def _between(length: int) -> tuple[NDArray[np.intp], Float]:
    """Return for each pixel the coarse cell before it, and how far it is to the next."""
    place = np.arange(length) / 8
    whole = place.astype(np.intp)
    part = (place - whole).astype(np.float32)
    return whole, part * part * (3 - 2 * part)


def _grid(size: int, pose: Pose) -> tuple[Float, Float]:
    line = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = (line - pose.right) / pose.zoom, (line - pose.down) / pose.zoom
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def _soft(inside: Real, edge: float) -> Float:
    """Return 0 outside to 1 inside, rising over `edge`."""
    return as_float32(np.clip(inside * np.float32(1 / edge), 0, 1))


def _ellipse(x: Float, y: Float, right: float, down: float, wide: float, high: float) -> Float:
    """Return 0 at the center and 1 on the border."""
    return as_float32(((x - right) / wide) ** 2 + ((y - down) / high) ** 2)


def _trunk(x: Float, y: Float) -> Float:
    """Return how thick neck, shoulders and trunk are."""
    shoulder = _soft(y + 1.02, 0.35)
    half = 0.4 + 0.54 * shoulder * shoulder * (3 - 2 * shoulder) - 0.06 * _soft(y, 1)
    return as_float32(np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1)))


def _lung(x: Float, y: Float, anatomy: Anatomy, side: int) -> Float:
    """Return one lung: narrow at the apex, cut off below by the dome of the diaphragm."""
    down = np.clip((y + 0.8 * anatomy.lungs) / 0.55, 0, 1)
    half = 0.31 * anatomy.lungs * np.sqrt(down) + 1e-3
    across = (x - side * (0.34 + 0.08 * down)) / half
    dome = 0.40 * anatomy.lungs + (0.05 if side > 0 else 0.0) + 0.9 * (x - side * 0.33) ** 2
    inside = np.minimum(1 - across * across, 4 * (dome - y))
    return _soft(np.where(down > 0, inside, 0), 0.3)


def _heart(x: Float, y: Float, anatomy: Anatomy) -> Float:
    """Return the heart, tilted to the patient's left, and the arch of the aorta above it."""
    right, down = x - 0.16, y - 0.24
    along, across = 0.8 * right + 0.6 * down, 0.8 * down - 0.6 * right
    size = anatomy.heart
    heart = 1 - (along / (0.38 * size)) ** 2 - (across / (0.29 * size)) ** 2
    arch = 1 - _ellipse(x, y, 0.07, -0.33, 0.13, 0.15)
    return np.maximum(_soft(heart, 0.3), _soft(arch, 0.4))


def _hila(x: Float, y: Float) -> Float:
    """Return the vessels at the roots of the lungs."""
    outward, down = (np.abs(x) - 0.17) / 0.13, (y + 0.08) / 0.2
    return as_float32(0.22 * np.exp(-outward * outward) * np.exp(-down * down))


def _ribs(x: Float, y: Float, anatomy: Anatomy) -> Float:
    """Return pairs of ribs that fall from the spine outwards."""
    outward = np.abs(x)
    place = 5.5 * (y - 0.9 * outward * outward + 0.25 * outward) + anatomy.ribs
    return _soft(1 - ((place - np.floor(place) - 0.5) / 0.17) ** 2, 0.7)


def _spine_and_clavicles(x: Float, y: Float) -> Float:
    spine = np.exp(-((x / 0.085) ** 2)) * (0.3 + 0.06 * np.cos(38 * y))  # one wave a vertebra
    outward = np.abs(x) - 0.1
    bone = _soft(1 - ((y + 0.62 + 0.3 * outward) / 0.04) ** 2, 0.6)
    bone = bone * _soft(outward, 0.05) * _soft(0.6 - outward, 0.1)
    return as_float32(spine + 0.2 * bone)


def _abdomen(x: Float, y: Float, anatomy: Anatomy) -> tuple[Float, tuple[Float, Float]]:
    """Return HU of what runs through all slices; and what upper and lower organs add to it."""
    trunk = _ellipse(x, y, 0, 0, 0.93, 0.68)
    flat = np.where(trunk < 1, np.float32(-100), np.float32(-1000))
    flat += 150 * _soft(0.8 - trunk, 0.06)  # muscle below the fat
    flat -= 45 * _soft(0.62 - trunk, 0.06)  # the fat between the bowels
    ring = _soft(1 - ((trunk - 0.72) / 0.05) ** 2, 0.5)
    flat += 450 * ring * (np.cos(9 * np.arctan2(y, x) + 6 * anatomy.ribs) > 0.55)
    liver = _soft(1 - _ellipse(x, y, _LIVER_X, _LIVER_Y, 0.37 * anatomy.lungs, 0.42), 0.12)
    flat += liver * (115 - flat)
    flat += 480 * _soft(1 - _ellipse(x, y, 0, 0.34, 0.13, 0.11), 0.3)
    flat += 200 * _soft(1 - _ellipse(x, y, 0.04, 0.14, 0.055, 0.055), 0.3)  # aorta
    gas = _soft(1 - _ellipse(x, y, 0.3, -0.3, 0.13, 0.09), 0.2)
    spleen = 130 * _soft(1 - _ellipse(x, y, 0.55, 0.08, 0.16, 0.24), 0.15) - 850 * gas
    kidneys = _soft(1 - _ellipse(np.abs(x), y, 0.33, 0.36, 0.12, 0.14), 0.15)
    return as_float32(flat), (as_float32(spleen), as_float32(180 * kidneys * (1 - liver)))


def _lobed(right: Float, down: Float, lesion: Lesion, away: float = 0.0) -> Float:
    """Return positive inside a lobed ball; `away` is the distance of the slice from its center.

    The ball's radius in a direction of the plane is R(angle); at a distance d from the center
    the slice shows what is within sqrt(R^2 - d^2).
    """
    angle = np.arctan2(down, right)
    radius = np.full(angle.shape, 2 * lesion.radius, np.float32)
    for lobes, phase in zip(_LOBES, lesion.phases, strict=True):
        radius *= 1 + 0.2 * lesion.irregularity * np.sin(lobes * angle + phase)
    reach = np.maximum(radius * radius - away * away, 1e-6)
    return as_float32(1 - (down * down + right * right) / reach)
