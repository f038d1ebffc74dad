"""State of a run: all that the next round needs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from common.data.weights import Weights, load_weights, safetensors_parts
from common.platform.durable_files import replace_durably
from common.platform.errors import RunFailed, StateDamaged
from common.platform.hash_chain import Fact
from server.files.folder import number_of, saved_rounds
from server.rounds.round_record import RoundRecord, record_from_json

#: Saved rounds that are kept beside the best: the last, and the one before in case it is damaged.
_KEPT = 2
_PARTS = ("weights", "server", "average")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after a round; `round` 0 is before the first."""

    run: str
    round: int
    seed: int
    fingerprint: str  # of the configuration the run was begun with
    weights: Weights  # the shared part of the network
    server: Mapping[str, Tensor]  # moments and control variates of the coordinator
    average: Weights  # exponential average of weights over rounds; empty when it is off
    best: Weights  # weights of the best round so far; empty before one was scored
    best_round: int = 0
    best_score: float | None = None  # validation score of the best round, lower is better
    settled: bool = True  # False: this round is trained, and not yet validated
    finished: bool = False
    history: tuple[RoundRecord, ...] = ()  # one for each round so far

    @property
    def current(self) -> Weights:
        """The weights that are evaluated: the average where there is one."""
        return self.average or self.weights

    @property
    def chosen(self) -> Weights:
        """The weights that the run ends with: the best round's, or the last."""
        return self.best or self.current


class RunStore:
    """The folder state/ of a run: a safetensors and a JSON file a round.

    Each file is written whole or not at all, the JSON last: it names the tensors' SHA-256.
    The best weights are those of the best round, whose files stay; nothing is written twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[int, str] = {}  # of the tensors that this object wrote or read
        self._written: Weights | None = None  # weights that were saved last
        self._damaged: set[int] = set()  # rounds that load passed over

    def save(self, state: RunState) -> None:
        """Save a state durably; a state of the same weights writes its facts alone.

        RunFailed when the folder holds a later round that this object has not read.
        """
        self._make_way(state.round)
        if state.weights is not self._written:
            self._written = None  # the last use of the weights before
            self._hashes[state.round] = self._save_tensors(state)
            self._written = state.weights
        facts = _facts(state) | {"tensors_sha256": self._hashes[state.round]}
        if state.best_round:
            facts["best_sha256"] = self._hash_of(state.best_round)
        body = json.dumps(facts, sort_keys=True, allow_nan=False)
        content = json.dumps({"facts": facts, "sha256": _sha256(body.encode())}, sort_keys=True)
        replace_durably(self._facts(state.round), content.encode())
        self._remove_old()

    def load(self, tell: Callable[[str], None] = _log.warning) -> RunState | None:
        """Return the last state that reads back as it was written, or None when none was saved.

        `tell` hears of each damaged round that is passed over; StateDamaged when none is left.
        """
        problems: list[str] = []
        for number in reversed(self._rounds()):
            try:
                state = self._read(number)
            except StateDamaged as error:
                problems.append(str(error))
                self._damaged.add(number)
                tell(f"{error} Going back to the round before; its sites train it again.")
                continue
            self._written = state.weights
            return state
        if not problems:
            return None
        message = " ".join(problems) + (
            f" No readable round is left: restore {self._folder} from a copy, or start a new run."
        )
        raise StateDamaged(message)

    def _make_way(self, number: int) -> None:
        """Remove what a crash left half written, and damaged rounds that are now done again."""
        for torn in self._folder.glob(".round-*.tmp"):
            torn.unlink()
        later = {n for n in self._rounds() if n > number}
        if later - self._damaged:
            message = (
                f"{self._folder} already holds round {max(later)} of a run, so round {number} is "
                "not saved over it. Resume that run, or take another folder."
            )
            raise RunFailed(message)
        for old in later:
            self._remove(old)

    def _save_tensors(self, state: RunState) -> str:
        parts = (state.weights, state.server, state.average)
        tensors = {
            f"{part}/{name}": value
            for part, values in zip(_PARTS, parts, strict=True)
            for name, value in values.items()
        }
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes | memoryview]:
            for content in safetensors_parts(tensors):
                digest.update(content)
                yield content

        replace_durably(self._tensors(state.round), hashed())
        return digest.hexdigest()

    def _hash_of(self, number: int) -> str:
        """Return the hash of a saved round's tensors, from its facts where another saved it."""
        if number not in self._hashes:
            try:
                content = json.loads(self._facts(number).read_bytes())
                self._hashes[number] = str(content["facts"]["tensors_sha256"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                message = (
                    f"{self._folder} does not hold the best round, {number}: {error!r}. Save the "
                    "state in the folder that it was loaded from."
                )
                raise StateDamaged(message) from error
        return self._hashes[number]

    def _read(self, number: int) -> RunState:
        path = self._facts(number)
        try:
            content = json.loads(path.read_bytes())
            facts, found = content["facts"], content["sha256"]
            if found != _sha256(json.dumps(facts, sort_keys=True).encode()):
                message = "it was changed after it was saved"
                raise ValueError(message)
            parts = self._read_tensors(number, facts["tensors_sha256"])
            best_round = int(facts["best_round"])
            best: Weights = {}
            if best_round:
                chosen = self._read_tensors(best_round, facts["best_sha256"])
                best = chosen["average"] or chosen["weights"]
            names, of_server = facts.get("names", ()), facts.get("server_names", ())
            return RunState(
                run=facts["run"],
                round=facts["round"],
                seed=facts["seed"],
                fingerprint=facts["fingerprint"],
                best=_ordered(best, names),
                best_round=best_round,
                best_score=facts["best_score"],
                settled=facts["settled"],
                finished=facts["finished"],
                history=tuple(map(record_from_json, facts["history"])),
                weights=_ordered(parts["weights"], names),
                server=_ordered(parts["server"], of_server),
                average=_ordered(parts["average"], names),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"Cannot read the saved round {path}: {error!r}."
            raise StateDamaged(message) from error

    def _read_tensors(self, number: int, sha256: str) -> dict[str, dict[str, Tensor]]:
        path = self._tensors(number)
        found = _sha256(path.read_bytes())
        if found != sha256:
            message = f"{path} is damaged: its SHA-256 is {found}, expected {sha256}."
            raise StateDamaged(message)
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for name, value in load_weights(path).items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        self._hashes[number] = sha256
        return parts

    def _remove_old(self) -> None:
        """Remove all but the last rounds and the best rounds that they name."""
        last = self._rounds()[-_KEPT:]
        keep = set(last)
        for number in last:
            try:
                keep.add(int(json.loads(self._facts(number).read_bytes())["facts"]["best_round"]))
            except (OSError, ValueError, KeyError, TypeError):
                return  # damaged: keep everything that it might name
        # Tensors alone are left when a crash parts them from their facts.
        tensors = {number_of(path) for path in self._folder.glob("round-*.safetensors")}
        for old in (tensors | set(self._rounds())) - keep:
            self._remove(old)

    def _remove(self, number: int) -> None:
        self._facts(number).unlink(missing_ok=True)
        self._tensors(number).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        return saved_rounds(self._folder)

    def _facts(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.json"

    def _tensors(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.safetensors"


def _ordered(values: Weights, names: Sequence[str]) -> Weights:
    """Return tensors in the order in which they were saved, which their file does not keep.

    So a round that is asked for again is asked in the same bytes, and sites repeat their answers.
    """
    return {name: values[name] for name in names} if set(names) == set(values) else values


def _facts(state: RunState) -> dict[str, Fact]:
    return {
        "names": list(state.weights),
        "server_names": list(state.server),
        "run": state.run,
        "round": state.round,
        "seed": state.seed,
        "fingerprint": state.fingerprint,
        "best_round": state.best_round,
        "best_score": state.best_score,
        "settled": state.settled,
        "finished": state.finished,
        "history": [record.to_json() for record in state.history],
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
