"""Composition of charges by patient: the largest part of a run, the sum over runs.

A patient trains, validates or tests in a run, by their own identifier alone
(client/cohort/split.py), so what was charged for one part is nothing to those of another (parallel
composition); a description of the cohort is of everybody. A patient may be in another part of
another run, so runs add up. A run is its name and what the name was bound to when it was charged,
as the ledger's own rows say.

    one name, another configuration, seed or key   two runs: they add up
    rows that do not say what they are bound to     all parts add up: 0.1.0, what was declared lost

    steps that draw patients at random             the run's parts are added up: an upper bound
    a run asked for twice                          both charges count, in their part
    a hospital moves a patient from one part to another during a run
                                                   not covered: the claims of both add up for them
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from client.privacy.charge_text import BoundTo, Charge
from common.privacy.accounting import epsilon_of
from common.privacy.plan import Mechanism

Part = Literal["train", "validation", "test", "statistics"]

#: Parts that a patient is in one of.
COUNTED_APART: tuple[Part, ...] = ("train", "validation", "test")
#: By part, oldest first; "statistics" is of everybody.
_Run = dict[Part, list[Mechanism]]


def charged_as(run: str, part: Part) -> str:
    """Return the ledger's name for a part of a run; a run's name has no slash."""
    return run if part == "train" else f"{run}/{part}"


def part_of(name: str) -> tuple[str, Part]:
    """Return run and part of a name in the ledger."""
    run, _, last = name.rpartition("/")
    for part in get_args(Part):
        if run and last == part:
            return run, part
    return name, "train"


def binding(charges: Iterable[Charge]) -> tuple[Mechanism, ...]:
    """Return mechanisms that bound what all charges together tell of any one patient."""
    found = _by_run(charges)
    return tuple(m for (_, bound), run in found.items() for m in _binding(bound, run))


def run_epsilon(charges: Iterable[Charge], run: str, delta: float) -> float:
    """Return the claim of a run's name: the largest over its parts, where they surely are such."""
    own = [charge for charge in charges if part_of(charge.run)[0] == run]
    found = _by_run(own)
    match list(found):
        case []:
            return 0.0
        case [(_, BoundTo() as bound)]:
            return max(epsilon_of(part, delta) for part in _each(found[run, bound]))
        case _:
            return epsilon_of(binding(own), delta)


def _by_run(charges: Iterable[Charge]) -> dict[tuple[str, BoundTo | None], _Run]:
    found: dict[tuple[str, BoundTo | None], _Run] = {}
    for charge in charges:
        run, part = part_of(charge.run)
        parts = found.setdefault((run, charge.bound), {})
        parts.setdefault(part, []).append(charge.mechanism)
    return found


def _each(run: Mapping[Part, Sequence[Mechanism]]) -> list[list[Mechanism]]:
    """Return what is charged for the patients of each part, with what is of everybody."""
    everybody = list(run.get("statistics", ()))
    parts = [list(run[part]) + everybody for part in run if part != "statistics"]
    return parts or [everybody]


def _binding(bound: BoundTo | None, run: _Run) -> list[Mechanism]:
    """Return the mechanisms of the largest part; of all where no part is surely the largest.

    Gaussians that everybody is in are ordered by their mu alone, whatever they are composed with.
    """
    if bound is None or any(m.sampling_rate < 1 for part in run.values() for m in part):
        return [m for part in run.values() for m in part]
    return max(_each(run), key=lambda part: math.fsum(_weight(m) for m in part))


def _weight(mechanism: Mechanism) -> float:
    return mechanism.steps / max(mechanism.noise_multiplier**2, 1e-300)
