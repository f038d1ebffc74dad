"""Record of a round: sites, reasons, scores and spend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.metrics.intervals import Estimate
from common.platform.hash_chain import Fact
from common.privacy.plan import LedgerHead


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round, for whoever watches, for the journal and for the report."""

    round: int
    updates: tuple[str, ...]  # sites whose updates were admitted
    left_out: Mapping[str, str] = field(default_factory=dict)  # other sites, and why
    faults: tuple[str, ...] = ()  # each answer that was not admitted: who, what, expected
    shortened: Mapping[str, str] = field(default_factory=dict)  # sites of too long updates, and how
    usual_norm: float | None = None  # median of the updates; None: they were not compared
    epsilon: Mapping[str, float] = field(default_factory=dict)  # by site, of this run so far
    delta: Mapping[str, float] = field(default_factory=dict)  # by site, at which it holds
    common_epsilon: Mapping[str, float] = field(default_factory=dict)  # the same at delta 1e-5
    ledgers: Mapping[str, LedgerHead] = field(default_factory=dict)  # by site, as told last
    score: float | None = None  # validation score, lower is better; None: not measured
    metrics: Mapping[str, Estimate] = field(default_factory=dict)  # merged, of validation
    seconds: float = 0.0  # of the whole round: training, validation, saving
    training_seconds: float = 0.0  # of asking, local steps, admission and aggregation alone

    def to_json(self) -> dict[str, Fact]:
        """Return plain values, None for nan; seconds are left out, so equal runs look equal."""
        facts: dict[str, Fact] = {
            "round": self.round,
            "updates": list(self.updates),
            "left_out": dict(self.left_out),
            "faults": list(self.faults),
            "epsilon": {n: _known(v) for n, v in self.epsilon.items()},
            "delta": {n: _known(v) for n, v in self.delta.items()},
            "common_epsilon": {n: _known(v) for n, v in self.common_epsilon.items()},
            "ledgers": {n: {"charges": h.charges, "hash": h.hash} for n, h in self.ledgers.items()},
            "score": None if self.score is None else _known(self.score),
            "metrics": {n: dict(e.to_json()) for n, e in self.metrics.items()},
        }
        if self.usual_norm is not None:
            facts["usual_norm"] = self.usual_norm
        return facts | {"shortened": dict(self.shortened)} if self.shortened else facts


def record_from_json(content: dict[str, object]) -> RoundRecord:
    """Read what `to_json` wrote; ValueError, KeyError or TypeError where it does not fit."""
    left_out, epsilon, metrics = (_mapping(content[n]) for n in ("left_out", "epsilon", "metrics"))
    ledgers = {site: _mapping(head) for site, head in _mapping(content["ledgers"]).items()}
    score = content["score"]
    return RoundRecord(
        round=_integer(content["round"]),
        updates=_texts(content["updates"]),
        left_out={site: str(reason) for site, reason in left_out.items()},
        faults=_texts(content["faults"]),
        usual_norm=None if content.get("usual_norm") is None else _number(content["usual_norm"]),
        shortened={s: str(how) for s, how in _mapping(content.get("shortened", {})).items()},
        epsilon={site: _number(value) for site, value in epsilon.items()},
        # What was saved before deltas were told has none.
        delta={n: _number(value) for n, value in _mapping(content.get("delta", {})).items()},
        common_epsilon={
            n: _number(value) for n, value in _mapping(content.get("common_epsilon", {})).items()
        },
        ledgers={
            site: LedgerHead(charges=_integer(head["charges"]), hash=str(head["hash"]))
            for site, head in ledgers.items()
        },
        score=None if score is None else _number(score),
        metrics={name: estimate_from_json(value) for name, value in metrics.items()},
    )


def last_ledgers(history: Sequence[RoundRecord]) -> dict[str, LedgerHead]:
    """Return where each site's ledger stood when it was last told of."""
    return {site: head for record in history for site, head in record.ledgers.items()}


def estimate_from_json(value: object) -> Estimate:
    """Read what an estimate's `to_json` wrote; KeyError or TypeError where it does not fit."""
    content = _mapping(value)
    return Estimate(
        value=_number(content["value"]),
        low=_number(content["low"]),
        high=_number(content["high"]),
        patients=_integer(content["patients"]),
        bound=_number(content["bound"]),
        reason=str(content.get("reason", "")),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        message = f"expected names with values, got {value!r}"
        raise TypeError(message)
    return {str(name): item for name, item in value.items()}


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        message = f"expected a list of texts, got {value!r}"
        raise TypeError(message)
    return tuple(str(item) for item in value)


def _integer(value: object) -> int:
    if not isinstance(value, int):
        message = f"expected a whole number, got {value!r}"
        raise TypeError(message)
    return value


def _number(value: object) -> float:
    if value is None:
        return float("nan")
    if not isinstance(value, int | float):
        message = f"expected a number, got {value!r}"
        raise TypeError(message)
    return float(value)
