"""State that a site keeps between rounds: personal layers and control variates.

Guarantee: a site that misses rounds goes on from the last that it took part in, and a round
that is asked for again starts from the same bits as the first time.

    round missed            recall returns what was kept before it
    round repeated          what it started from is still there
    coordinator goes back   by one saved round: what that round started from is still there
    round done anew         what was kept of later rounds is forgotten: they never were
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from common.data.weights import Weights, load_weights, save_weights

#: Rounds kept of a run: the one under way, and two that it or the one before may start from.
_KEPT = 3


class SiteMemory(Protocol):
    """A site's own tensors by run and round, so that a repeated round starts where it did."""

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what the site had after this round; empty when nothing was kept by then."""
        ...

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Keep the site's own tensors of this round."""
        ...


class MemoryInProcess:
    """Kept while the process lives."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, Weights]] = {}

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what was kept last by this round, or nothing."""
        kept = self._kept.get(run, {})
        last = _last(kept, round_number)
        return {} if last is None else kept[last]

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Keep the tensors and forget what can no longer be asked for."""
        kept = self._kept.setdefault(run, {})
        kept[round_number] = weights
        for gone in _forgotten(kept, round_number):
            del kept[gone]


class MemoryInFolder:
    """Kept in a folder of the site, durable before the round's update leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what was kept last by this round; StateDamaged when the file is broken."""
        last = _last(self._rounds(run), round_number)
        return {} if last is None else load_weights(self._path(run, last))

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Write the tensors durably, then remove what can no longer be asked for."""
        save_weights(self._path(run, round_number), weights)
        for gone in _forgotten(self._rounds(run), round_number):
            self._path(run, gone).unlink(missing_ok=True)

    def _rounds(self, run: str) -> list[int]:
        found = (self._folder / run).glob("round-*.safetensors")
        return [int(path.stem.removeprefix("round-")) for path in found]

    def _path(self, run: str, round_number: int) -> Path:
        return self._folder / run / f"round-{round_number:05d}.safetensors"


def _last(kept: Iterable[int], round_number: int) -> int | None:
    """Return the last kept round that is not after this one."""
    return max((number for number in kept if number <= round_number), default=None)


def _forgotten(kept: Iterable[int], round_number: int) -> list[int]:
    """Return the rounds to forget when this one was kept: later ones, and all but the last."""
    numbers = list(kept)
    later = [number for number in numbers if number > round_number]
    earlier = sorted(number for number in numbers if number <= round_number)
    return later + earlier[:-_KEPT]
