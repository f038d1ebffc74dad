"""Statistics of predictions: counts and sums that add up between sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a daemon reads statistics without torch, which takes a second to load
    from torch import Tensor

Counts = NDArray[np.float64]  # whole numbers, unless Gaussian noise was added
Sums = NDArray[np.float64]
#: Noised counts are multiples of this part of a patient.
_GRID = 2.0**-10


class Normal(Protocol):
    """A source of Gaussian noise, such as common.privacy.noise."""

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return independent draws in float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Everything in it adds up: merging is adding, in any order."""

    #: () patients (or images, by the run's unit) that were measured; from the noised cells alone
    #: where there is noise.
    patients: Counts
    cells: Mapping[str, Counts]  # counts of patients; small ones do not leave
    sums: Mapping[str, Sums]  # sums over at least the smallest cell of patients
    noise: float = 0.0  # variance of the Gaussian noise on each cell; 0: exact

    def to_json(self) -> dict[str, object]:
        """Return plain lists and numbers."""
        noise = {"noise": self.noise} if self.noise else {}
        return noise | {
            "patients": float(self.patients),
            "cells": {name: value.tolist() for name, value in self.cells.items()},
            "sums": {name: value.tolist() for name, value in self.sums.items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, object]) -> Statistics:
        """Read what to_json wrote; ValueError where it does not fit."""
        missing = {"patients", "cells", "sums"} - content.keys()
        if missing:
            message = f"statistics lack {', '.join(sorted(missing))}"
            raise ValueError(message)
        patients, cells, sums = content["patients"], content["cells"], content["sums"]
        if not isinstance(cells, dict) or not isinstance(sums, dict):
            message = "statistics need cells and sums by name"
            raise ValueError(message)  # noqa: TRY004 - content from outside, not a programming error
        return Statistics(
            patients=_numbers("patients", patients),
            cells={str(name): _numbers(str(name), value) for name, value in cells.items()},
            sums={str(name): _numbers(str(name), value) for name, value in sums.items()},
            noise=float(_numbers("noise", content.get("noise", 0.0))),
        )


def _numbers(name: str, value: object) -> Counts:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        message = f"{name} holds {str(value)[:40]!r}, expected numbers in rows of equal length"
        raise ValueError(message) from error


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Add statistics of several sites; ValueError when there are none or they differ in kind."""
    every = tuple(parts)
    if not every:
        message = "there are no statistics to merge"
        raise ValueError(message)
    kinds = [_shapes(part) for part in every]
    if any(kind != kinds[0] for kind in kinds):
        message = f"cannot merge statistics of different kinds: {kinds}"
        raise ValueError(message)

    def total(values: Iterable[Counts]) -> Counts:
        return np.asarray(sum(values, np.float64(0)))

    return Statistics(
        patients=total(p.patients for p in every),
        cells={name: total(p.cells[name] for p in every) for name in every[0].cells},
        sums={name: total(p.sums[name] for p in every) for name in every[0].sums},
        noise=sum(p.noise for p in every),
    )


def _shapes(part: Statistics) -> dict[str, tuple[int, ...]]:
    cells = {f"cell {name}": value.shape for name, value in part.cells.items()}
    return cells | {f"sum {name}": value.shape for name, value in part.sums.items()}


def on_grid(noise: Counts) -> Counts:
    """Return noise rounded to a grid that all counts lie on.

    So count and noise are rounded together: the low bits of a floating-point sum would tell the
    count (Mironov 2012).
    """
    return np.asarray(np.rint(noise / _GRID) * _GRID)


def count_sensitivity(statistics: Statistics) -> float:
    """Return how far (L2) one patient more or less can move all cells together.

    Holds for statistics made with `count_noise` > 0: there a patient is in one cell of each row
    of the last axis, and no cell depends on where other patients are. It does not hold for
    joined ranges, whose ends are found from the patients.
    """
    return float(np.sqrt(_rows(statistics)))


def _rows(statistics: Statistics) -> int:
    return sum(int(np.prod(value.shape[:-1])) for value in statistics.cells.values())


def with_count_noise(
    statistics: Statistics, standard_deviation: float, noise: Normal
) -> Statistics:
    """Add Gaussian noise to every cell; the number of patients follows from the noised cells.

    A Gaussian mechanism with noise multiplier standard_deviation / count_sensitivity, which
    the caller charges before release. No sum leaves: none is bounded here.
    """

    def noisy(value: Counts) -> Counts:
        drawn = noise.gaussian(value.shape, standard_deviation).numpy()
        return np.asarray(value + on_grid(drawn))

    cells = {name: noisy(value) for name, value in statistics.cells.items()}
    total = sum(float(value.sum()) for value in cells.values())
    return Statistics(
        patients=np.array(total / _rows(statistics)),
        cells=cells,
        sums={},
        noise=standard_deviation**2,
    )
