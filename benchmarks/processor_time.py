"""Processor time of processes, and what they had written to disk, as the kernel counts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Spent:
    """What a process and its ended children have used so far."""

    seconds: float  # of a core
    written: int  # bytes that went to the disk

    @classmethod
    def by(cls, *pids: int) -> Spent:
        """Read it of several processes, together; one that has ended counts for nothing."""
        found = [_of(pid) for pid in pids]
        return cls(sum(s for s, _ in found), sum(w for _, w in found))

    def since(self, before: Spent) -> Spent:
        """Return what came since."""
        return Spent(self.seconds - before.seconds, self.written - before.written)


def _of(pid: int) -> tuple[float, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0.0, 0
    ticks = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    facts = dict(line.split(": ") for line in lines)
    return ticks / _TICKS, int(facts["write_bytes"])
