"""Time of a round here, estimated from one step on made-up images."""

from __future__ import annotations

import functools
import math
import time

import torch

from client.privacy.isolation import Isolation
from client.training.local_model import LocalModel
from client.training.training_site import Site
from common.data.sample import Batch, patient_loss
from common.models.bags import answered

#: Items of the tried step; a round's time is this one's, by the number of items.
_ITEMS = 16


def round_seconds(local_model: LocalModel, site: Site, patients: int) -> float:
    """Return the estimated seconds of one round with so many patients, to two digits.

    A forward and a backward pass over made-up images of the cohort's shape; no weight changes,
    nothing is drawn from the run's generators. In a private run it depends on the machine, the
    configuration and `patients` alone: each is taken to have as many images as a step may use.
    """
    rules = local_model.config.training
    drawn = patients if rules.batch_patients == "all" else min(rules.batch_patients, patients)
    per_patient: float = rules.images_per_patient
    if local_model.config.privacy == "none":
        per_patient = min(len(site.train.patient) / len(site.train), per_patient)
    if local_model.patches is not None:
        per_patient = local_model.patches.per_patient
    items = drawn * per_patient * rules.local_steps
    tried = Isolation(local_model.model, local_model.task)
    with torch.random.fork_rng(devices=[]):
        tried.alone(functools.partial(_step_seconds, local_model, site))  # the first one warms up
        seconds = tried.alone(functools.partial(_step_seconds, local_model, site))
    return _two_digits(seconds * items / _items(local_model))


def _step_seconds(local_model: LocalModel, site: Site) -> float:
    some = _made_up(site, _items(local_model))
    trained = [p for p in local_model.model.parameters() if p.requires_grad]
    start = time.perf_counter()
    output, of = answered(local_model.model, some)
    loss = patient_loss(local_model.item_loss(output, of.target), of)
    torch.autograd.grad(loss, trained, allow_unused=True)
    return time.perf_counter() - start


def _items(local_model: LocalModel) -> int:
    return _ITEMS if local_model.patches is None else 1  # one patch is in memory at a time


def _made_up(site: Site, items: int) -> Batch:
    real = site.train
    return Batch(
        image=torch.zeros((items, *real.image.shape[1:]), dtype=real.image.dtype),
        table=torch.zeros((items, *real.table.shape[1:]), dtype=real.table.dtype),
        target=torch.zeros((items, *real.target.shape[1:]), dtype=real.target.dtype),
        patient=torch.arange(items),
        weight=torch.ones(items),
    )


def _two_digits(value: float) -> float:
    return round(value, 1 - math.floor(math.log10(value))) if value > 0 else 0.0
