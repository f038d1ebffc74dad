"""What a site keeps for itself between rounds: personal layers and control variates."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from common.weights import Weights, load_weights, save_weights


class SiteMemory(Protocol):
    """A site's own tensors by run and round, so that a repeated round starts where it did."""

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what the site had after this round; empty when nothing was kept."""
        ...

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Keep the site's own tensors of this round."""
        ...


class MemoryInProcess:
    """Kept while the process lives, the last two rounds of each run."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Weights] = {}

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what was kept, or nothing."""
        return self._kept.get((run, round_number), {})

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Keep the tensors; the round before last can no longer be asked for."""
        self._kept[run, round_number] = weights
        self._kept.pop((run, round_number - 2), None)


class MemoryInFolder:
    """Kept in a folder of the site, durable before the round's update leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, run: str, round_number: int) -> Weights:
        """Return what was kept, or nothing; StateDamaged when the file is broken."""
        path = self._path(run, round_number)
        return load_weights(path) if path.exists() else {}

    def keep(self, run: str, round_number: int, weights: Weights) -> None:
        """Write the tensors durably and remove the round before last."""
        save_weights(self._path(run, round_number), weights)
        self._path(run, round_number - 2).unlink(missing_ok=True)

    def _path(self, run: str, round_number: int) -> Path:
        return self._folder / run / f"round-{round_number:05d}.safetensors"
