"""How far a transfer is, in words: 48 of 94 MB, 9 min left."""

from __future__ import annotations

from dataclasses import dataclass

#: Smaller ones are over before anybody reads of them.
SMALLEST_BYTES = 1_000_000
#: Before so much has passed nobody knows how fast the line is.
_FIRST_SECONDS = 2.0
_MINUTE, _HOUR = 60.0, 3600.0


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One transfer under way; bytes that were there when it was taken up again are no rate's."""

    done: int  # bytes
    total: int  # bytes; of one that is on its way to here, an estimate by its objects
    at_first: int = 0  # bytes that were there before `seconds` began
    seconds: float = 0.0  # since it began, or was taken up again

    @property
    def words(self) -> str:
        """Return a sentence's part; nothing of a small one."""
        if self.total < SMALLEST_BYTES:
            return ""
        here = f"{self.done / 1e6:.0f} of {max(self.total, self.done) / 1e6:.0f} MB"
        passed = self.done - self.at_first
        if self.seconds < _FIRST_SECONDS or passed <= 0:
            return here
        left = max(self.total - self.done, 0) * self.seconds / passed
        return f"{here}, {_time(left)} left"


def _time(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(round(seconds), 1)} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h"
