"""How long a round takes here: one step tried on the site's own patients, nothing kept of it."""

from __future__ import annotations

import math
import time

import torch

from client.site import Site
from client.workbench import Workbench
from common.sample import patient_loss, take

#: Items of the tried step; a round's time is this one's, by the number of items.
_MOST_ITEMS = 64


def round_seconds(site: Site, bench: Workbench) -> float:
    """Return the estimated seconds of one round of training, to two digits.

    A forward and a backward pass over some of the training items; no weight changes, nothing
    is drawn from the run's generators.
    """
    rules, patients = bench.config.training, site.train
    drawn = len(patients) if rules.batch_patients == "all" else rules.batch_patients
    per_patient = min(len(patients.patient) / len(patients), rules.images_per_patient)
    items = min(drawn, len(patients)) * per_patient * rules.local_steps
    some = take(patients, torch.arange(min(_MOST_ITEMS, len(patients.patient))))
    trained = [p for p in bench.model.parameters() if p.requires_grad]
    seconds = 0.0
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            output = bench.model(some.image, some.table)
            loss = patient_loss(bench.task.item_loss(output, some.target), some)
            torch.autograd.grad(loss, trained, allow_unused=True)
            seconds = time.perf_counter() - start
    return _two_digits(seconds * items / len(some.patient))


def _two_digits(value: float) -> float:
    return round(value, 1 - math.floor(math.log10(value))) if value > 0 else 0.0
