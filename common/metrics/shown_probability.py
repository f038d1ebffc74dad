"""Probabilities as people read them: none is shown as 0 or as 1."""

from __future__ import annotations

_LEAST, _MOST = 0.01, 0.99


def shown_probability(value: float, digits: int = 3) -> str:
    """Return a probability, or "below 1 %" and "above 99 %" for what would read as certain."""
    return _extreme(value) or f"{value:.{digits}f}"


def shown_share(value: float, digits: int = 0) -> str:
    """Return a part of many in percent, or "below 1 %" and "above 99 %" near none and all."""
    return _extreme(value) or f"{value:.{digits}%}"


def _extreme(value: float) -> str:
    """Return words for what rounds to none or all; nothing for the rest, and for what is none."""
    if 0 <= value < _LEAST:
        return "below 1 %"
    return "above 99 %" if _MOST < value <= 1 else ""
