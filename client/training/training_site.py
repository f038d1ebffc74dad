"""A hospital in a run: its patients, its own tensors, its ledger and its noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from client.privacy.charge_text import BoundTo, Charge
from client.privacy.composition import Part, charged_as
from client.privacy.ledger import Ledger, Limit
from client.privacy.repeated_answers import Answers, AnswersInProcess
from client.training.kept_between_rounds import MemoryInProcess, SiteMemory
from common.data.sample import Patients
from common.messages.wire import Request
from common.privacy.noise import NoiseSource
from common.privacy.plan import Mechanism, Spend


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What stands between a site's patients and a private run."""

    ledger: Ledger
    limit: Limit  # the largest epsilon for these patients, all runs together
    cohort: str  # name of the patients in the ledger
    noise: NoiseSource
    #: What a run is charged for everybody beside its training: the description of the cohort.
    beside: tuple[Mechanism, ...] = ()
    split: str = ""  # tells the site's split key from another

    def charge(self, request: Request, part: Part, mechanism: Mechanism, delta: float) -> Spend:
        """Charge what a request releases of a part, in the name of its run and no other."""
        charge = Charge(
            cohort=self.cohort,
            run=charged_as(request.run, part),
            round=request.round,
            attempt=1,
            mechanism=mechanism,
            bound=bound_to(request, self.split),
        )
        spend = self.ledger.charge(charge, self.limit, delta)
        return replace(spend, simulated_noise=self.noise.simulated)


def bound_to(request: Request, split: str) -> BoundTo:
    """Return what the name of a request's run stands for at a site."""
    return BoundTo(configuration=request.config.fingerprint(), seed=request.seed, split=split)


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
