"""A hospital in a run: its patients, its own tensors, its ledger and its noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from client.answers import Answers, AnswersInProcess
from client.ledger import Ledger, Limit
from client.memory import MemoryInProcess, SiteMemory
from common.privacy.noise import NoiseSource
from common.privacy.plan import Mechanism
from common.sample import Patients


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What stands between a site's patients and a private run."""

    ledger: Ledger
    limit: Limit  # the largest epsilon for these patients, all runs together
    cohort: str  # name of the patients in the ledger
    noise: NoiseSource
    #: What a run is charged for everybody beside its training: the description of the cohort.
    beside: tuple[Mechanism, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A hospital's side of a run; images and scores stay behind its functions."""

    name: str
    train: Patients
    validation: Patients
    test: Patients
    guard: Guard | None = None  # None: this site takes part in runs without privacy only
    memory: SiteMemory = field(default_factory=MemoryInProcess)
    answers: Answers = field(default_factory=AnswersInProcess)


def data_order(seed: int, site: str, round_number: int) -> torch.Generator:
    """Return the generator of a site's data order in a round, from public facts alone.

    It is made anew each round, so that a round that is repeated after a crash draws the
    same batches. The noise of privacy never comes from here.
    """
    digest = hashlib.sha256(f"{seed}/{site}/{round_number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextmanager
def repeatable_dropout(seed: int, site: str, round_number: int) -> Iterator[None]:
    """Let dropout draw from a seed of public facts; the global generator stays as it was.

    torch's dropout takes no generator of its own, so the global one is lent for the time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(data_order(seed, site, round_number).initial_seed())
        yield
