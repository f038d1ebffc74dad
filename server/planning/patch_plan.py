"""Plan for training on patches: spacing, patch, poolings and batch, from a cohort's fingerprint.

The rules are those of nnU-Net (Isensee et al., Nature Methods 18:203-211, 2021; its
default_experiment_planner at 0e495086). What they are given is not: nnU-Net reads the spacing and
shape of every case, sites here tell counts in public ranges (common/messages/cohort_statistics.py),
so a median is the middle of the range that holds it. Nothing is applied: whoever asks gets values
to look at.

Public: Fingerprint, PatchPlan, fingerprint_of, plan, usual_share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.config.parts.ranges import bins
from common.messages.cohort_statistics import (
    AXES,
    AXIS_EXTENTS,
    AXIS_SPACINGS,
    FOREGROUND,
    FOREGROUND_SHARES,
    MergedTable,
    extent_table,
    spacing_table,
)
from common.platform.errors import CohortError

#: An axis is coarse where its voxels are so many times as long as the others', and so many times
#: fewer.
_COARSE = 3.0
_LOW = 0.1  # quantile of spacing that a coarse axis takes
#: Voxels of the first patch, and below which no edge is pooled.
_FIRST_VOXELS, _SHORTEST = 256**3, 4
_WIDTH, _WIDEST, _CONVOLUTIONS = 32, 320, 2
#: Values of all feature maps that fit into so many GB, at a batch of two.
_VALUES, _VALUES_GB, _BATCH = 560_000_000, 8.0, 2
_LARGEST_PART = 0.05  # of all voxels of the cohort, in one batch

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the rules need to know of a cohort's volumes, by axis (slices, rows, columns)."""

    spacing: Triple  # median, mm
    fine_spacing: Triple  # 10 % have a shorter one, mm
    extent: Triple  # median, mm
    shape: Triple  # median, voxels as scanned
    volumes: float


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """Values to be looked at."""

    spacing: Triple  # mm
    shape: tuple[int, int, int]  # of the median volume at that spacing
    patch: tuple[int, int, int]  # voxels
    poolings: tuple[int, int, int]  # halvings of each axis
    batch: int  # patches

    @property
    def levels(self) -> int:
        """Resolutions of the network, the full one included."""
        return max(self.poolings) + 1


def plan(found: Fingerprint, structures: int, memory_gb: float = _VALUES_GB) -> PatchPlan:
    """Return the plan for a network with so many structures and memory."""
    spacing = _target(found)
    shape = _three([max(1, round(e / s)) for e, s in zip(found.extent, spacing, strict=True)])
    side = (_FIRST_VOXELS * math.prod(spacing)) ** (1 / 3)  # mm
    first = [min(round(side / s), n) for s, n in zip(spacing, shape, strict=True)]
    patch, poolings, strides = _pooled(spacing, first)
    largest = _VALUES * memory_gb / _VALUES_GB
    while (values := _feature_values(patch, strides, structures + 1)) > largest:
        # The axis that covers most of the volume gives way; of two alike the later one.
        axis = max(range(3), key=lambda k: (patch[k] / shape[k], k))
        fewer = list(patch)
        step = _pooled(spacing, [n - (k == axis) * 2 ** poolings[k] for k, n in enumerate(patch)])
        fewer[axis] -= 2 ** step[1][axis]
        patch, poolings, strides = _pooled(spacing, fewer)
    batch = round(largest / values * _BATCH)
    part = round(found.volumes * math.prod(shape) * _LARGEST_PART / math.prod(patch))
    return PatchPlan(
        spacing=spacing,
        shape=shape,
        patch=patch,
        poolings=poolings,
        batch=max(min(batch, part), _BATCH),
    )


def _target(found: Fingerprint) -> Triple:
    """Return the spacing to which volumes are resampled: the median, finer on a coarse axis."""
    spacing = list(found.spacing)
    worst = max(range(3), key=lambda k: spacing[k])
    others = [k for k in range(3) if k != worst]
    widest = max(spacing[k] for k in others)
    few = found.shape[worst] * _COARSE < min(found.shape[k] for k in others)
    if spacing[worst] > _COARSE * widest and few:
        fine = found.fine_spacing[worst]
        spacing[worst] = fine if fine >= widest else max(widest, fine) + 1e-5
    return spacing[0], spacing[1], spacing[2]


def _pooled(
    spacing: Triple, size: Sequence[int]
) -> tuple[tuple[int, int, int], tuple[int, int, int], list[tuple[int, int, int]]]:
    """Return the patch that can be pooled, how often by axis, and the strides of each level."""
    here, now, times = list(spacing), list(size), [0, 0, 0]
    strides = [(1, 1, 1)]
    while True:
        able = [k for k in range(3) if now[k] >= 2 * _SHORTEST]
        if not able:
            break
        finest = min(here[k] for k in able)
        able = [k for k in able if here[k] / finest < 2]
        if len(able) == 1 and now[able[0]] < 3 * _SHORTEST:
            break
        for k in able:
            times[k] += 1
            here[k] *= 2
            now[k] = math.ceil(now[k] / 2)
        strides.append(_three([2 if k in able else 1 for k in range(3)]))
    fits = [math.ceil(n / 2**t) * 2**t for n, t in zip(size, times, strict=True)]
    return _three(fits), _three(times), strides


def _feature_values(
    patch: Sequence[int], strides: Sequence[tuple[int, int, int]], labels: int
) -> int:
    """Return how many values nnU-Net's plain U-Net holds of one patch."""
    size, sizes, widths, total = list(patch), [], [], 0
    for level, stride in enumerate(strides):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
        widths.append(min(_WIDTH * 2**level, _WIDEST))
        total += _CONVOLUTIONS * widths[-1] * sizes[-1]
    for level in range(len(strides) - 1):
        # Transposed convolution, two convolutions, and a head for deep supervision.
        total += ((1 + _CONVOLUTIONS) * widths[level] + labels) * sizes[level]
    return total


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = values
    return first, second, third


# --- from counts in public ranges --------------------------------------------------------------


def fingerprint_of(tables: Mapping[str, MergedTable], volumes: float) -> Fingerprint:
    """Return the fingerprint of released counts; CohortError where an axis was told nothing of.

    What was held back is in no row, and noise may leave less than nothing in one: that counts 0.
    """
    spacing, extent = (
        [_counts(tables, name(axis), edges) for axis in AXES]
        for name, edges in ((spacing_table, AXIS_SPACINGS), (extent_table, AXIS_EXTENTS))
    )
    median = [_quantile(counts, AXIS_SPACINGS, 0.5) for counts in spacing]
    size = [_quantile(counts, AXIS_EXTENTS, 0.5) for counts in extent]
    low = [_quantile(counts, AXIS_SPACINGS, _LOW) for counts in spacing]
    return Fingerprint(
        spacing=(median[0], median[1], median[2]),
        fine_spacing=(low[0], low[1], low[2]),
        extent=(size[0], size[1], size[2]),
        shape=(size[0] / median[0], size[1] / median[1], size[2] / median[2]),
        volumes=max(1.0, volumes),
    )


def _counts(tables: Mapping[str, MergedTable], name: str, edges: tuple[float, ...]) -> list[float]:
    table = tables.get(name)
    # Without the last row, of those of whom it is not known.
    counts = [] if table is None else [max(0.0, table.rows[r].told) for r in bins(edges)[:-1]]
    if not sum(counts) > 0:
        message = (
            f"No site told the table {name}: its counts are of too few patients, or nobody "
            "answered. Ask when the sites have more patients, or plan by hand."
        )
        raise CohortError(message)
    return counts


def usual_share(tables: Mapping[str, MergedTable]) -> str:
    """Return the range of shares in structures that holds the median volume; empty: not told."""
    table, rows = tables.get(FOREGROUND), bins(FOREGROUND_SHARES)[:-1]
    counts = [] if table is None else [max(0.0, table.rows[row].told) for row in rows]
    return rows[_place(counts, 0.5)] if sum(counts) > 0 else ""


def _quantile(counts: Sequence[float], edges: tuple[float, ...], part: float) -> float:
    """Return the middle, by ratio, of the range that holds a quantile."""
    place = _place(counts, part)
    step = edges[-1] / edges[-2]
    high = edges[place + 1] if place + 1 < len(edges) else edges[place] * step
    return round(math.sqrt(edges[place] * high), 3)


def _place(counts: Sequence[float], part: float) -> int:
    """Return the first place up to which so large a part of all counts lies."""
    reached = np.cumsum(counts) >= part * sum(counts)
    return int(np.argmax(reached & (np.array(counts) > 0)))
