"""A charge as the ledger stores it: a text whose hash is taken as it stands.

The hash covers the text that was stored, not what a release makes of it. A fact that a later
release adds, with a default, leaves every earlier charge as it is; it is written only where it
differs from its default. A fact that this release does not know is no damage: LedgerTooNew.

Public: BoundTo, Charge, chained, charge_of, mechanism_of, text_of_columns, written.

Charging, and refusing what is over the limit, is client/privacy/ledger.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from common.platform.errors import LedgerTooNew
from common.privacy.plan import LedgerHead, Mechanism


@dataclass(frozen=True, kw_only=True)
class BoundTo:
    """What a run's name stands for: with the table, each patient's part in it follows from this."""

    configuration: str  # its hash
    seed: int
    split: str  # tells the site's split key from another


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What was charged; a new fact is a field with a default, here or in Mechanism."""

    cohort: str
    run: str
    round: int
    attempt: int  # 1 is the first of its round
    mechanism: Mechanism
    #: Of a loss that the site's admin declared: charges up to this number were lost, ...
    lost_up_to: int = 0
    #: ... and so were these, as "number:hash"; this charge makes up for them.
    lost: tuple[str, ...] = ()
    #: None: of an earlier release, or declared lost; it says nothing of who was in which part.
    bound: BoundTo | None = None

    def makes_up_for(self, head: LedgerHead, before: int) -> bool:
        """Return whether a charge that is not in the ledger was declared lost with this one.

        `before` is the number of the charge before this one.
        """
        return before < head.charges <= self.lost_up_to or named(head) in self.lost

    def text(self) -> str:
        """Return the charge as it is stored and hashed."""
        facts = asdict(self) | {"mechanism": written(self.mechanism)}
        return json.dumps({name: facts[name] for name in written(self)}, sort_keys=True)

    def columns(self) -> tuple[str, str, int, int, str]:
        """Return what stands beside the text, for the unique index and for who looks by hand."""
        mechanism = json.dumps(written(self.mechanism), sort_keys=True)
        return self.cohort, self.run, self.round, self.attempt, mechanism


def named(head: LedgerHead) -> str:
    """Return a charge's place as one text."""
    return f"{head.charges}:{head.hash}"


def chained(previous: str, text: str) -> str:
    """Return the hash of a charge after the one with hash `previous`."""
    return hashlib.sha256(f"{previous}{text}".encode()).hexdigest()


def charge_of(text: str) -> Charge:
    """Read a charge's text.

    LedgerTooNew for a fact that a later release wrote; ValueError, TypeError, KeyError or
    PrivacyError for what is no charge.
    """
    facts = json.loads(text)
    _check_known(facts, Charge)
    lost, bound = tuple(map(str, facts.get("lost", ()))), facts.get("bound")
    return Charge(
        **facts
        | {
            "mechanism": mechanism_of(facts["mechanism"]),
            "lost": lost,
            "bound": None if bound is None else _bound_of(bound),
        }
    )


def _bound_of(facts: Mapping[str, Any]) -> BoundTo:
    _check_known(facts, BoundTo)
    return BoundTo(**facts)


def mechanism_of(facts: Mapping[str, Any]) -> Mechanism:
    """Read the facts of a mechanism; LedgerTooNew for one that a later release wrote."""
    _check_known(facts, Mechanism)
    return Mechanism(**facts)


def text_of_columns(cohort: str, run: str, round_number: int, attempt: int, mechanism: str) -> str:
    """Return the text of a charge that release 0.1.0 made: it kept only the mechanism as text."""
    return (
        f'{{"attempt": {attempt}, "cohort": {json.dumps(cohort)}, "mechanism": {mechanism}, '
        f'"round": {round_number}, "run": {json.dumps(run)}}}'
    )


def written(one: Charge | Mechanism) -> dict[str, object]:
    """Return the facts of 0.1.0, and of later ones those that differ from their default."""
    return {
        field.name: getattr(one, field.name)
        for field in fields(one)
        if field.default is MISSING
        or field.name == "unit"
        or getattr(one, field.name) != field.default
    }


def _check_known(facts: object, kind: type[BoundTo | Charge | Mechanism]) -> None:
    if not isinstance(facts, Mapping):
        message = f"expected facts of a {kind.__name__}, got {facts!r:.80}"
        raise TypeError(message)
    new = sorted(facts.keys() - {field.name for field in fields(kind)})
    if new:
        raise LedgerTooNew(", ".join(map(str, new)))
