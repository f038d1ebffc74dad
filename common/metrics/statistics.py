"""What a site may say about its predictions: counts and sums that add up between sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]  # whole numbers, unless Gaussian noise was added
Sums = NDArray[np.float64]


class Normal(Protocol):
    """A source of Gaussian noise, such as common.privacy.noise."""

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> NDArray[np.float64]:
        """Return independent draws."""
        ...


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Everything in it adds up: merging is adding, in any order."""

    patients: Counts  # () patients (or images, by the run's unit) that were measured
    cells: Mapping[str, Counts]  # counts of patients; small ones do not leave
    sums: Mapping[str, Sums]  # sums over at least the smallest cell of patients

    def to_json(self) -> dict[str, object]:
        """Return plain lists and numbers."""
        return {
            "patients": float(self.patients),
            "cells": {name: value.tolist() for name, value in self.cells.items()},
            "sums": {name: value.tolist() for name, value in self.sums.items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, object]) -> Statistics:
        """Read what to_json wrote; ValueError where it does not fit."""
        patients, cells, sums = content["patients"], content["cells"], content["sums"]
        if not isinstance(cells, dict) or not isinstance(sums, dict):
            message = "statistics need cells and sums by name"
            raise ValueError(message)  # noqa: TRY004 - content from outside, not a programming error
        return Statistics(
            patients=np.asarray(patients, np.float64),
            cells={str(name): np.asarray(value, np.float64) for name, value in cells.items()},
            sums={str(name): np.asarray(value, np.float64) for name, value in sums.items()},
        )


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Add statistics of several sites; ValueError when there are none or they differ in kind."""
    first, *rest = parts

    def total(values: Iterable[Counts]) -> Counts:
        return np.asarray(sum(values, np.float64(0)))

    for other in rest:
        if set(other.cells) != set(first.cells) or set(other.sums) != set(first.sums):
            message = f"cannot merge {sorted(other.cells)} with {sorted(first.cells)}"
            raise ValueError(message)
    every = (first, *rest)
    return Statistics(
        patients=total(p.patients for p in every),
        cells={name: total(p.cells[name] for p in every) for name in first.cells},
        sums={name: total(p.sums[name] for p in every) for name in first.sums},
    )


def withhold_small_cells(statistics: Statistics, smallest: int) -> Statistics:
    """Set every count below `smallest` to zero, and all sums when there are too few patients.

    A zero may thus mean none or few. Sums go with `patients`: below the smallest cell they
    would be sums over so few that each could be guessed.
    """
    enough = float(statistics.patients) >= smallest
    return Statistics(
        patients=statistics.patients if enough else np.zeros(()),
        cells={n: np.where(v >= smallest, v, 0.0) for n, v in statistics.cells.items()},
        sums={n: v if enough else np.zeros_like(v) for n, v in statistics.sums.items()},
    )


def with_count_noise(
    statistics: Statistics, standard_deviation: float, noise: Normal
) -> Statistics:
    """Add Gaussian noise to every count and leave no sum: sums have no bounded sensitivity here.

    One patient is in one cell of each named array, so the L2 sensitivity of the counts
    together is sqrt(number of arrays + 1); the caller charges the ledger by that.
    """

    def noisy(value: Counts) -> Counts:
        return value + noise.gaussian(value.shape, standard_deviation)

    return Statistics(
        patients=noisy(statistics.patients),
        cells={name: noisy(value) for name, value in statistics.cells.items()},
        sums={name: np.full_like(value, np.nan) for name, value in statistics.sums.items()},
    )
