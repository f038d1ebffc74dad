"""Growth of processes' memory, by the kernel's own high-water mark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Growth:
    """Resident memory of one process, counted from when this was made."""

    pid: int
    before: int  # bytes

    @classmethod
    def of(cls, pid: int) -> Growth:
        """Begin to count; the high-water mark starts anew."""
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return cls(pid, resident(pid))

    def most(self) -> int:
        """Return by how many bytes the process was larger, at the most."""
        return max(resident_peak(self.pid) - self.before, 0)


def children(pid: int) -> list[int]:
    """Return the processes that this one started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has now."""
    return _status(pid, "VmRSS")


def resident_peak(pid: int) -> int:
    """Return the most bytes of memory that a process has had."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    message = f"/proc/{pid}/status has no {name}."
    raise ValueError(message)
