"""Patients that never were: pictures of chests and bodies with a lesion, by formula and seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Mask = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """Where a lesion sits and how it looks; lengths are parts of the image's height."""

    row: float
    column: float
    depth: float  # 0 to 1 along the slices; ignored in 2-D
    radius: float
    irregularity: float  # 0 is a disc, 1 a strongly lobed outline
    contrast: float  # added to tissue of about 0.5


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What a site's machine does to every picture."""

    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    blur: int = 0  # passes of a 3-tap smoothing
    noise: float = 0.03  # standard deviation, of a full range of 1


def smooth(picture: Float, passes: int) -> Float:
    """Blur along the last two axes with a (1, 2, 1) / 4 kernel, `passes` times."""
    for _ in range(passes):
        for axis in (-2, -1):
            before, after = np.roll(picture, 1, axis), np.roll(picture, -1, axis)
            picture = (0.25 * before + 0.5 * picture + 0.25 * after).astype(np.float32)
    return picture


def texture(shape: tuple[int, ...], rng: np.random.Generator) -> Float:
    """Return soft tissue texture with standard deviation 1 at two scales."""
    fine = smooth(rng.standard_normal(shape, dtype=np.float32), 1)
    coarse = smooth(rng.standard_normal(shape, dtype=np.float32), 6)
    mixed = fine / fine.std() + coarse / coarse.std()
    return (mixed / np.sqrt(2.0)).astype(np.float32)


def chest(size: int, lesions: tuple[Lesion, ...], rng: np.random.Generator) -> tuple[Float, Mask]:
    """Return an X-ray-like picture (size, size) in 0 to 1, bright is dense, and the lesion mask."""
    rows, columns = _grid(size)
    shift, scale = rng.normal(0, 0.02, 2), rng.normal(1, 0.04, 2)
    picture = np.full((size, size), 0.25, np.float32)
    body = ((columns - 0.5) / 0.46) ** 2 + ((rows - 0.55) / 0.62) ** 2 < 1
    picture[body] = 0.62
    for center in (0.3, 0.7):
        across = (columns - center - shift[0]) / (0.155 * scale[0])
        along = (rows - 0.45 - shift[1]) / (0.3 * scale[1])
        picture -= 0.38 * _soft(1 - across**2 - along**2, 0.15)
    heart = 1 - ((columns - 0.56) / 0.15) ** 2 - ((rows - 0.62) / 0.16) ** 2
    picture += 0.25 * _soft(heart, 0.2)
    for rib in range(7):
        level = 0.17 + 0.09 * rib + 0.35 * (columns - 0.5) ** 2
        picture += 0.05 * np.exp(-(((rows - level) / 0.012) ** 2)) * body
    mask = np.zeros((size, size), np.uint8)
    for lesion in lesions:
        inside = _outline(rows, columns, lesion, rng)
        picture += lesion.contrast * _soft(inside, 0.25)
        mask |= (inside > 0).astype(np.uint8)
    picture += 0.03 * texture((size, size), rng)
    return picture.astype(np.float32), mask


def body(
    shape: tuple[int, int, int], lesions: tuple[Lesion, ...], rng: np.random.Generator
) -> tuple[Float, Mask]:
    """Return a CT-like volume (slices, rows, columns) in 0 to 1 and the lesion mask."""
    slices, size, _ = shape
    rows, columns = _grid(size)
    trunk = 1 - ((columns - 0.5) / 0.42) ** 2 - ((rows - 0.5) / 0.33) ** 2
    flat = 0.5 * _soft(trunk, 0.03)
    spine = 1 - ((columns - 0.5) / 0.06) ** 2 - ((rows - 0.74) / 0.06) ** 2
    flat = flat + 0.35 * _soft(spine, 0.2)
    liver = 1 - ((columns - 0.34) / 0.15) ** 2 - ((rows - 0.45) / 0.17) ** 2
    flat = flat + 0.08 * _soft(liver, 0.2)
    volume = np.repeat(flat[None].astype(np.float32), slices, axis=0)
    mask = np.zeros(shape, np.uint8)
    height = (np.arange(slices) + 0.5) / slices
    for lesion in lesions:
        for index, level in enumerate(height):
            away = (level - lesion.depth) * slices / size
            if abs(away) >= lesion.radius:
                continue
            inside = _outline(rows, columns, lesion, rng, away)
            volume[index] += lesion.contrast * _soft(inside, 0.25)
            mask[index] |= (inside > 0).astype(np.uint8)
    return (volume + 0.03 * texture(shape, rng)).astype(np.float32), mask


def scan(picture: Float, scanner: Scanner, rng: np.random.Generator) -> Float:
    """Return the picture as this machine would take it, in 0 to 1."""
    taken = np.clip(picture, 0, 1) ** scanner.gamma * scanner.gain + scanner.offset
    taken = smooth(taken.astype(np.float32), scanner.blur)
    taken = taken + scanner.noise * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(taken, 0, 1).astype(np.float32)


def _grid(size: int) -> tuple[Float, Float]:
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return line[:, None], line[None, :]


def _soft(inside: Float, edge: float) -> Float:
    """Return 0 outside to 1 inside with a soft border."""
    return np.clip(inside / edge, 0, 1).astype(np.float32)


def _outline(
    rows: Float, columns: Float, lesion: Lesion, rng: np.random.Generator, away: float = 0.0
) -> Float:
    """Return positive inside a lobed disc; `away` is the distance of this slice."""
    down, right = rows - lesion.row, columns - lesion.column
    angle = np.arctan2(down, right)
    radius = np.full(angle.shape, lesion.radius, np.float32)
    for lobes in (2, 3, 5):
        phase = rng.uniform(0, 2 * np.pi)
        radius *= 1 + 0.22 * lesion.irregularity * np.sin(lobes * angle + phase)
    reach = np.maximum(radius**2 - away**2, 1e-6)
    return (1 - (down**2 + right**2) / reach).astype(np.float32)
