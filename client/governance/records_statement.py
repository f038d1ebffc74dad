"""Statement of where a site's records stand, sealed for the coordinator.

Guarantee: without the site's identity.key, which never leaves, a sealed statement can be neither
read nor made (AES-256-GCM), and its length says nothing of withdrawals. So a coordinator can give
one back or keep it to itself; it cannot make a site believe that it had spent what it has not.

Public: Statement, sealed, opened, sealed_head, opened_head, statement_from, joined, without.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from client.governance.decisions_log import DecisionsHead
from client.site.withdrawals import WithdrawalsHead
from common.platform.errors import WardroundError
from common.privacy.plan import LedgerHead, Mechanism

_NONCE_BYTES = 12
_BLOCK = 4096
_SHORT_BLOCK = 256
#: Of the numbers of lines, patients and decisions together.
_MOST_DIGITS = 36
_PURPOSE = b"wardround receipt 1"
Spent = Mapping[str, tuple[Mechanism, ...]]  # by cohort


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Where the records stood, and what was spent by then, so that a loss can be charged back."""

    ledger: LedgerHead
    withdrawals: WithdrawalsHead
    spent: Spent
    decided: DecisionsHead | None = None  # None: of a release that kept no such log
    disclosed: str = ""  # hash of the last message's line; empty likewise

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "decided": None if self.decided is None else vars(self.decided),
            "disclosed": self.disclosed,
            "ledger": vars(self.ledger),
            "withdrawals": vars(self.withdrawals),
            "spent": {name: list(map(_short, spent)) for name, spent in self.spent.items()},
        }


def statement_from(facts: object) -> Statement | None:
    """Read what `to_json` wrote; None for what is no statement."""
    try:
        if not isinstance(facts, dict):
            return None
        decided = facts.get("decided")
        return Statement(
            decided=None if decided is None else DecisionsHead(**decided),
            disclosed=str(facts.get("disclosed", "")),
            ledger=LedgerHead(**facts["ledger"]),
            withdrawals=WithdrawalsHead(**facts["withdrawals"]),
            spent={
                str(name): tuple(_mechanism(*one) for one in spent)
                for name, spent in facts["spent"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError, WardroundError):
        return None


def _short(one: Mechanism) -> list[float]:
    """Return what epsilon depends on."""
    return [one.noise_multiplier, one.sampling_rate, one.steps]


def _mechanism(noise_multiplier: float, sampling_rate: float, steps: int) -> Mechanism:
    return Mechanism(
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
        steps=int(steps),
        clip_norm=1.0,
        divisor=1.0,
    )


def joined(mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """Return as much spending in fewer parts: equal steps are added up, by noise and sampling."""
    steps: dict[tuple[float, float], int] = {}
    for one in mechanisms:
        kind = (one.noise_multiplier, one.sampling_rate)
        steps[kind] = steps.get(kind, 0) + one.steps
    return tuple(_mechanism(*kind, number) for kind, number in steps.items())


def without(spent: Iterable[Mechanism], known: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """Return what was spent beyond what is known."""
    left = {replace(one, steps=0): one.steps for one in joined(spent)}
    for one in joined(known):
        kind = replace(one, steps=0)
        left[kind] = left.get(kind, 0) - one.steps
    return tuple(replace(kind, steps=number) for kind, number in left.items() if number > 0)


def sealed(statement: Statement, key: bytes) -> str:
    """Return a statement that only this site's home can read, in whole blocks."""
    # Numbers of withdrawals are as long as any: else one more digit could begin a block.
    decisions = 0 if statement.decided is None else statement.decided.lines
    numbers = f"{statement.withdrawals.lines}{statement.withdrawals.patients}{decisions}"
    return _sealed(statement.to_json(), key, _BLOCK, _MOST_DIGITS - len(numbers))


def opened(content: str, key: bytes) -> Statement | None:
    """Return the statement, or None where this home did not seal it."""
    return statement_from(_opened(content, key))


def sealed_head(head: WithdrawalsHead, key: bytes) -> str:
    """Return where withdrawals stand, for a line of what has left: it tells nobody else of them."""
    return _sealed(dict(vars(head)), key, _SHORT_BLOCK)


def opened_head(content: str, key: bytes) -> WithdrawalsHead | None:
    """Return where withdrawals stood, or None where this home did not seal it."""
    facts = _opened(content, key)
    try:
        return WithdrawalsHead(**facts) if isinstance(facts, dict) else None
    except TypeError:
        return None


def _sealed(facts: dict[str, object], key: bytes, block: int, spaces: int = 0) -> str:
    text = json.dumps(facts).encode() + b" " * spaces
    text += b" " * (-len(text) % block)
    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(_key(key)).encrypt(nonce, text, _PURPOSE)).decode()


def _opened(content: str, key: bytes) -> object:
    try:
        raw = base64.b64decode(content, validate=True)
        text = AESGCM(_key(key)).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _PURPOSE)
        return json.loads(text)
    except (InvalidTag, ValueError):
        return None


def _key(key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE, hashlib.sha256)
