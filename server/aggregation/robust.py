"""Robust aggregation: coordinate median, trimmed mean, Krum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.config.run_config import Aggregation
from common.data.weights import Weights
from common.platform.errors import RunFailed


def combine_robustly(config: Aggregation, deltas: Sequence[Weights]) -> dict[str, Tensor]:
    """Return one update from all sites' updates by the configured rule."""
    if config.rule in {"krum", "multi_krum"}:  # each is compared with each: unpacked once
        deltas = [dict(delta) for delta in deltas]
    match config.rule:
        case "median":
            return {n: _median(torch.stack([d[n] for d in deltas])) for n in deltas[0]}
        case "trimmed_mean":
            cut = int(config.trim_fraction * len(deltas))
            return {n: _trimmed(torch.stack([d[n] for d in deltas]), cut) for n in deltas[0]}
        case "krum":
            return dict(deltas[krum_order(deltas, config.faulty_sites)[0]])
        case "multi_krum":
            order = krum_order(deltas, config.faulty_sites)
            chosen = [deltas[i] for i in order[: len(deltas) - config.faulty_sites]]
            return {n: torch.stack([d[n] for d in chosen]).mean(0) for n in deltas[0]}
        case _:
            message = f"rule {config.rule} is not one that compares sites"
            raise AssertionError(message)


def _median(stack: Tensor) -> Tensor:
    """Return the coordinate-wise median; of an even number, the mean of the middle two."""
    ordered = stack.sort(0).values
    middle = len(stack) // 2
    if len(stack) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _trimmed(stack: Tensor, cut: int) -> Tensor:
    return stack.sort(0).values[cut : len(stack) - cut].mean(0)


def krum_order(deltas: Sequence[Weights], faulty: int) -> list[int]:
    """Return sites by Krum's score, best first (Blanchard et al. 2017, section 4).

    The score is the sum of squared distances to the n - f - 2 nearest others. RunFailed
    with fewer than f + 3 sites, where no score exists; the paper's guarantee wants 2f + 3.
    """
    sites = len(deltas)
    nearest = sites - faulty - 2
    if nearest < 1:
        message = (
            f"Krum with faulty_sites={faulty} needs at least {faulty + 3} updates, got {sites}. "
            "Wait for more sites or lower aggregation.faulty_sites."
        )
        raise RunFailed(message)
    # The smallest distance of each row is the site's own, zero.
    scores = _squared_distances(deltas).sort(1).values[:, 1 : nearest + 1].sum(1)
    return [int(i) for i in scores.argsort(stable=True)]


def _squared_distances(deltas: Sequence[Weights]) -> Tensor:
    """Return squared distances between sites, (sites, sites), one tensor name at a time.

    In float64 and from differences: |x|^2 + |y|^2 - 2xy loses all digits for close sites.
    """
    total = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    for name in sorted(deltas[0]):
        rows = torch.stack([d[name].flatten() for d in deltas]).double()
        total += torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    return total
