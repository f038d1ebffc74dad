"""One hospital's patients as several sites, unlike on purpose: virtual sites, to be called so."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never, get_args

from client.cohort.site_cohort import SiteCohort, patients_at
from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError
from simulations.comparison.cohorts import outcome_of
from simulations.comparison.partition import group_skew, label_skew, quantity_skew

#: In what virtual sites differ: mix of outcomes, number of patients, or whom they hold together.
Skew = Literal["label", "quantity", "group"]
SKEWS: tuple[Skew, ...] = get_args(Skew)


@dataclass(frozen=True, kw_only=True)
class Deal:
    """How one hospital's patients are dealt to sites."""

    sites: int
    by: Skew
    alpha: float  # of label and quantity: Dirichlet's; less is more skew
    mixing: float  # of group: part of all patients, 0 to 1, that is dealt evenly
    seed: int
    smallest: int  # patients that each site has at least


def deal(cohort: SiteCohort, config: RunConfig, wanted: Deal) -> tuple[SiteCohort, ...]:
    """Return the virtual sites NAME-1, NAME-2, ...; every patient is at exactly one of them.

    What of the hospital cannot be used stays listed with the hospital alone. ConfigurationError
    where the deal cannot be made.
    """
    return tuple(
        part_of_cohort(cohort, f"{cohort.name}-{number}", patients)
        for number, patients in enumerate(_dealt(cohort, config, wanted), 1)
    )


def _dealt(cohort: SiteCohort, config: RunConfig, wanted: Deal) -> tuple[tuple[int, ...], ...]:
    sites, seed, smallest = wanted.sites, wanted.seed, wanted.smallest
    match wanted.by:
        case "label":
            return label_skew(_outcomes(cohort, config), sites, wanted.alpha, seed, smallest)
        case "quantity":
            return quantity_skew(len(cohort.items), sites, wanted.alpha, seed, smallest)
        case "group":
            return group_skew(_groups(cohort, config), sites, wanted.mixing, seed, smallest)
    assert_never(wanted.by)


def _outcomes(cohort: SiteCohort, config: RunConfig) -> Sequence[Hashable]:
    """Return each patient's outcome, that of the first item."""
    items = cohort.items
    return [outcome_of(items.target[items.items_of(p)[0]], config) for p in range(len(items))]


def _groups(cohort: SiteCohort, config: RunConfig) -> Sequence[Hashable]:
    """Return each patient's value of the column cohort.confounder, that of the first item."""
    if config.cohort.confounder is None:
        message = (
            f"Run {config.name} names no column to keep patients together by. Name one in "
            "cohort.confounder, such as that of the scanner, and read the hospital again."
        )
        raise ConfigurationError(message)
    items = cohort.items
    return [cohort.confounder[int(items.items_of(p)[0])] for p in range(len(items))]


def part_of_cohort(cohort: SiteCohort, name: str, patients: Sequence[int]) -> SiteCohort:
    """Return the patients at these positions, which ascend, as a site of that name."""
    items = cohort.items
    kept = {items.pseudonyms[place] for place in patients}
    wanted = set(patients)
    places = [i for i, owner in enumerate(items.patient.tolist()) if owner in wanted]
    return replace(
        cohort,
        name=name,
        items=patients_at(items, list(patients)),
        given={p: part for p, part in cohort.given.items() if p in kept},
        confounder=tuple(cohort.confounder[i] for i in places),
        unusable=(),
        sources=tuple(cohort.sources[i] for i in places) if cohort.sources else (),
        examples={p: image for p, image in cohort.examples.items() if p in kept},
    )
