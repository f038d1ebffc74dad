"""State of an interrupted comparison, to go on from.

    unfinished/KEY/federated-seed1-fold0.safetensors   an arm that ended
    unfinished/KEY/rounds/federated-1-0/               rounds of the arm at work

KEY is of the configuration, the patients' data and this release: nothing else is gone on
with. The folder goes when the comparison ends, so a command that is repeated trains anew.
Private arms begin again: their rounds would be charged a second time.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from client.cohort.site_cohort import SiteCohort
from common.config.run_config import RunConfig
from common.data.kept_items import pieces
from common.data.weights import Weights, load_weights, save_weights
from common.platform.errors import StateDamaged
from common.tasks.task import Scores
from server.rounds.round_record import RoundRecord, estimate_from_json, record_from_json
from server.rounds.run_state import RunState, RunStore

if TYPE_CHECKING:
    from simulations.comparison.arms import Arm, ArmOutcome

#: Rounds that took less than this together are sooner trained again than saved.
_WORTH_SECONDS = 2.0
_FACTS = "facts"
_SCORES = ("prediction", "target", "loss", "owner")


class Unfinished:
    """The folder of one comparison's finished arms and saved rounds."""

    def __init__(self, folder: Path, key: str) -> None:
        self._top = folder
        self._folder = folder / key[:16]

    def outcome(self, arm: Arm, seed: int, fold: int) -> ArmOutcome | None:
        """Return an arm that ended before the interruption, or None."""
        path = self._path(arm, seed, fold)
        if not path.exists():
            return None
        try:
            return _outcome(load_weights(path))
        except (StateDamaged, KeyError, TypeError, ValueError):
            return None  # trained again

    def keep(self, arm: Arm, seed: int, fold: int, outcome: ArmOutcome) -> None:
        """Keep an arm that ended, durably."""
        save_weights(self._path(arm, seed, fold), _tensors(outcome))

    def store(self, run: str) -> RunStore:
        """Return where a run saves its rounds."""
        return SparingStore(self._folder / "rounds" / run)

    def remove(self) -> None:
        """Forget everything: the comparison ended."""
        shutil.rmtree(self._top, ignore_errors=True)

    def _path(self, arm: Arm, seed: int, fold: int) -> Path:
        return self._folder / f"{arm}-seed{seed}-fold{fold}.safetensors"


class SparingStore(RunStore):
    """Saves a round when that is worth it; the best round always, as later ones refer to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._last = time.monotonic()

    def save(self, state: RunState) -> None:
        """Save durably if the last save is long ago."""
        now = time.monotonic()
        best = state.settled and state.best_round == state.round and state.round > 0
        if best or now - self._last >= _WORTH_SECONDS:
            super().save(state)
            self._last = now


def digest_of_patients(cohorts: tuple[SiteCohort, ...]) -> str:
    """Return the SHA-256 of the hospitals' names, pseudonyms, images, tables and targets."""
    digest = hashlib.sha256()
    for cohort in cohorts:
        digest.update(json.dumps([cohort.name, cohort.items.pseudonyms]).encode())
        for value in (cohort.items.image, cohort.items.table, cohort.items.target):
            digest.update(repr((value.dtype, tuple(value.shape))).encode())
            for part in pieces(value):
                digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def key_of_comparison(config: RunConfig, patients: str) -> str:
    """Return the SHA-256 of all that decides a comparison's results, except arms and seeds.

    `patients` is their `digest_of_patients`.
    """
    digest = hashlib.sha256(config.canonical_json().encode())
    # With another number of threads sums differ in their last digits: nothing is mixed.
    digest.update(f"threads {torch.get_num_threads()}".encode())
    digest.update(importlib.metadata.version("torch").encode())
    digest.update(_release().encode())
    digest.update(patients.encode())
    return digest.hexdigest()


@functools.cache
def _release() -> str:
    """Return a digest of this package's own code: another release may train otherwise."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("common", "client", "server", "simulations"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _tensors(outcome: ArmOutcome) -> dict[str, Tensor]:
    """Return an outcome as tensors; its facts are JSON in one of bytes."""
    facts = {
        "rounds": [record.to_json() for record in outcome.rounds],
        "seconds_by_round": [[r.seconds, r.training_seconds] for r in outcome.rounds],
        "epsilon": dict(outcome.epsilon),
        "delta": dict(outcome.delta),
        "chosen_round": outcome.chosen_round,
        "seconds": outcome.seconds,
        "sites": list(outcome.test),
        "own": list(outcome.own),
        "told": {name: dict(e.to_json()) for name, e in outcome.told.items()},
    }
    body = bytearray(json.dumps(facts, allow_nan=False).encode())
    found = {_FACTS: torch.frombuffer(body, dtype=torch.uint8)}
    found |= {f"weights/{name}": value for name, value in outcome.weights.items()}
    found |= {f"validation/{site}": losses for site, losses in outcome.validation.items()}
    found |= {
        f"own/{site}/{name}": value
        for site, weights in outcome.own.items()
        for name, value in weights.items()
    }
    for site, scores in outcome.test.items():
        for part in _SCORES:
            value = getattr(scores, part)
            if value is not None:
                found[f"test/{site}/{part}"] = value
    return found


def _outcome(tensors: Weights) -> ArmOutcome:
    from simulations.comparison.arms import ArmOutcome

    facts = json.loads(bytes(tensors[_FACTS].numpy()))
    rounds = tuple(
        replace(record_from_json(record), seconds=seconds, training_seconds=training)
        for record, (seconds, training) in zip(
            facts["rounds"], facts["seconds_by_round"], strict=True
        )
    )
    return ArmOutcome(
        test={site: _scores(tensors, site) for site in facts["sites"]},
        validation={site: tensors[f"validation/{site}"] for site in facts["sites"]},
        own={site: _named(tensors, f"own/{site}/") for site in facts["own"]},
        rounds=rounds,
        epsilon=facts["epsilon"],
        delta=facts["delta"],
        weights=_named(tensors, "weights/"),
        chosen_round=facts["chosen_round"],
        seconds=facts["seconds"],
        told={name: estimate_from_json(value) for name, value in facts["told"].items()},
    )


def _scores(tensors: Weights, site: str) -> Scores:
    return Scores(
        prediction=tensors[f"test/{site}/prediction"],
        target=tensors[f"test/{site}/target"],
        loss=tensors[f"test/{site}/loss"],
        owner=tensors.get(f"test/{site}/owner"),
    )


def _named(tensors: Weights, start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}


def rounds_of(state: RunState, seen: Mapping[int, RoundRecord]) -> tuple[RoundRecord, ...]:
    """Return a run's rounds, with their times where they were trained by this command."""
    return tuple(seen.get(record.round, record) for record in state.history)
