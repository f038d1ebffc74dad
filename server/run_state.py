"""Where a run stands: everything the next round needs, saved before it begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from common.errors import StateDamaged
from common.weights import Weights, load_weights, replace_durably

#: Saved rounds that are kept: the last, and the one before in case the last is damaged.
_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after a round; `round` 0 is before the first."""

    run: str
    round: int
    seed: int
    weights: Weights  # the shared part of the network
    server: Mapping[str, Tensor]  # moments and control variates of the coordinator
    average: Weights  # exponential average of weights over rounds; empty when it is off
    best: Weights  # weights of the best round so far; empty before one was scored
    best_round: int = 0
    best_score: float | None = None  # validation score of the best round, lower is better
    finished: bool = False

    @property
    def current(self) -> Weights:
        """The weights that are evaluated: the average where there is one."""
        return self.average or self.weights

    @property
    def chosen(self) -> Weights:
        """The weights that the run ends with: the best round's, or the last."""
        return self.best or self.current


_PARTS = ("weights", "server", "average", "best")


class RunStore:
    """The folder state/ of a run: safetensors and JSON, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, state: RunState) -> None:
        """Save a state durably; the JSON comes last and names the tensors' hash."""
        # Imported here: loading it takes as long as a small round.
        from safetensors.torch import save

        tensors = {
            f"{part}/{name}": value.contiguous()
            for part in _PARTS
            for name, value in getattr(state, part).items()
        }
        content = save(tensors)
        facts = {
            "run": state.run, "round": state.round, "seed": state.seed,
            "best_round": state.best_round, "best_score": state.best_score,
            "finished": state.finished, "tensors_sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        replace_durably(self._tensors(state.round), content)
        replace_durably(self._facts(state.round), json.dumps(facts, sort_keys=True).encode())
        for old in self._rounds()[:-_KEPT]:
            self._facts(old).unlink(missing_ok=True)
            self._tensors(old).unlink(missing_ok=True)

    def load(self) -> RunState | None:
        """Return the last saved state, or None when nothing was saved.

        StateDamaged when what was saved cannot be read back as it was written; it names
        the file to remove, after which the run resumes one round earlier.
        """
        rounds = self._rounds()
        return self._read(rounds[-1]) if rounds else None

    def _read(self, round_number: int) -> RunState:
        facts_path, tensors_path = self._facts(round_number), self._tensors(round_number)
        remedy = f"Remove {facts_path} to resume one round earlier."
        try:
            facts = json.loads(facts_path.read_text())
            content = tensors_path.read_bytes()
        except (OSError, ValueError) as error:
            message = f"Cannot read the saved round {facts_path}: {error}. {remedy}"
            raise StateDamaged(message) from error
        found = hashlib.sha256(content).hexdigest()
        if found != facts.get("tensors_sha256"):
            message = f"{tensors_path} was changed after it was saved (SHA-256 {found}). {remedy}"
            raise StateDamaged(message)
        tensors = load_weights(tensors_path)
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        return RunState(
            run=facts["run"], round=facts["round"], seed=facts["seed"],
            best_round=facts["best_round"], best_score=facts["best_score"],
            finished=facts["finished"], **parts,
        )  # fmt: skip

    def _rounds(self) -> list[int]:
        return sorted(int(p.stem.removeprefix("round-")) for p in self._folder.glob("round-*.json"))

    def _facts(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:05d}.json"

    def _tensors(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:05d}.safetensors"


def finished(state: RunState) -> RunState:
    """Return the state of a run that ends here."""
    return replace(state, finished=True)
