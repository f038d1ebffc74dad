"""Partition of one source's patients into several unlike sites.

Each function takes one entry a patient and returns one tuple of positions a site: every
patient is at exactly one site, positions ascend, every site has at least `smallest` patients,
and the same seed gives the same answer. All images of a patient go where the patient goes,
because images are not seen here.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.platform.errors import ConfigurationError

Sites = tuple[tuple[int, ...], ...]


def label_skew(
    labels: Sequence[Hashable], sites: int, alpha: float, seed: int, smallest: int = 2
) -> Sites:
    """Give each site its own mix of labels: Dirichlet(alpha) shares, per label, over the sites.

    Small alpha is more skew (Hsu et al. 2019, arXiv:1909.06335); labels may be any values.
    """
    _check(len(labels), sites, smallest)
    _check_alpha(alpha)
    rng = np.random.default_rng(seed)
    dealt: list[list[int]] = [[] for _ in range(sites)]
    for members in _groups(labels):
        order = [members[i] for i in rng.permutation(len(members))]
        counts = _counts(len(order), rng.dirichlet([alpha] * sites))
        for site, part in zip(dealt, _cut(order, counts), strict=True):
            site.extend(part)
    return _finished(dealt, smallest, rng)


def quantity_skew(patients: int, sites: int, alpha: float, seed: int, smallest: int = 2) -> Sites:
    """Give sites unlike numbers of patients: Dirichlet(alpha) shares of all, at random."""
    _check(patients, sites, smallest)
    _check_alpha(alpha)
    rng = np.random.default_rng(seed)
    order = rng.permutation(patients).tolist()
    counts = _counts(patients, rng.dirichlet([alpha] * sites))
    return _finished(_cut(order, counts), smallest, rng)


def group_skew(
    groups: Sequence[Hashable], sites: int, mixing: float, seed: int, smallest: int = 2
) -> Sites:
    """Keep patients of one group, such as a scanner's, together at one site.

    Groups go to the site that has the fewest patients so far, the largest group first; then
    the part `mixing` of all patients (0 to 1) is dealt anew, evenly. mixing 1 is no skew.
    """
    _check(len(groups), sites, smallest)
    if not 0 <= mixing <= 1:
        message = f"mixing={mixing}: expected 0 (groups stay together) to 1 (no skew)."
        raise ConfigurationError(message)
    rng = np.random.default_rng(seed)
    moved = {i for i in range(len(groups)) if rng.random() < mixing}
    dealt: list[list[int]] = [[] for _ in range(sites)]
    for members in sorted(_groups(groups), key=len, reverse=True):
        min(dealt, key=len).extend(i for i in members if i not in moved)
    for patient in rng.permutation(sorted(moved)).tolist():
        min(dealt, key=len).append(int(patient))
    return _finished(dealt, smallest, rng)


def scanner_skew(scanners: Sequence[Hashable], sites: int, seed: int, smallest: int = 2) -> Sites:
    """Give each site its own scanners: group_skew without mixing."""
    return group_skew(scanners, sites, 0.0, seed, smallest)


def _groups(values: Sequence[Hashable]) -> list[list[int]]:
    """Return positions by value, in the order in which values first occur."""
    found: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        found.setdefault(value, []).append(position)
    return list(found.values())


def _counts(total: int, shares: NDArray[np.float64]) -> list[int]:
    """Return whole numbers that add up to total, each within one of its share of it."""
    edges = np.round(np.cumsum(shares) * total).astype(int)
    edges[-1] = total
    counts: list[int] = np.diff(np.minimum(edges, total), prepend=0).tolist()
    return counts


def _cut(order: Sequence[int], counts: Sequence[int]) -> list[list[int]]:
    edges = itertools.accumulate(counts, initial=0)
    return [list(order[a:b]) for a, b in itertools.pairwise(edges)]


def _finished(dealt: list[list[int]], smallest: int, rng: np.random.Generator) -> Sites:
    """Move random patients from the largest site to sites that have too few, then sort."""
    for site in dealt:
        while len(site) < smallest:
            donor = max(dealt, key=len)
            site.append(donor.pop(int(rng.integers(len(donor)))))
    return tuple(tuple(sorted(site)) for site in dealt)


def _check(patients: int, sites: int, smallest: int) -> None:
    if sites < 1 or smallest < 0:
        message = f"sites={sites}, smallest={smallest}: expected at least 1 and 0."
        raise ConfigurationError(message)
    if patients < sites * smallest:
        message = (
            f"{patients} patients are too few for {sites} sites with at least {smallest} each. "
            "Ask for fewer sites or give more patients."
        )
        raise ConfigurationError(message)


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        message = f"alpha={alpha}: expected a number above 0; less is more skew."
        raise ConfigurationError(message)
