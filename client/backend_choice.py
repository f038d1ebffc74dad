"""Which way of making gradients by patient is fastest for this network on this machine.

Timed on random images of the cohort's shape. A way is only considered when its clipped sum is
the loop's to a thousandth of its norm, which finds a network that it cannot be used for; where it
can, the sums differ by rounding (some 1e-6). What rounding may add to one patient's weight is kept
back in clipping (clipping.PEER_ERROR), whichever way is taken.

Public: choose_backend, fixed_backend.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from client.clipping import clip_factor, patient_norms
from client.patient_gradients import (
    LOOP,
    Backend,
    Drawn,
    Objective,
    gradients_by_patient,
    linear_layers,
)
from common.errors import UnsafeModel
from common.sample import Patients

#: Below this many trained parameters, gradients of many patients fit side by side.
_SMALL = 200_000
_MANY = 256
#: Items in a trial step of a large network, but two patients at least.
_TRIAL_ITEMS = 4
#: Patients of a large network side by side on a GPU.
_ON_GPU = 16
#: How far a sum may be from the loop's, as part of its norm.
_AGREEMENT = 1e-3
#: A first trial, caches cold, that takes so many times the best is not repeated.
_HOPELESS = 2.0


def fixed_backend(objective: Objective, parameters: Sequence[nn.Parameter]) -> Backend:
    """Return a backend by rule alone, so that a repeated simulation takes the same one."""
    return _candidates(objective, parameters)[-1] if _is_small(parameters) else LOOP


def choose_backend(objective: Objective, parameters: Sequence[nn.Parameter]) -> Backend:
    """Return the fastest backend that agrees with the loop, after a trial of each."""
    most = _MANY if _is_small(parameters) else _few(objective, parameters)
    trial, drawn = _trial(objective, most)
    was_training = objective.model.training
    objective.model.eval()  # without dropout the ways can be compared
    try:
        return _fastest(trial, drawn, parameters)
    finally:
        objective.model.train(was_training)


def _fastest(trial: Objective, drawn: Drawn, parameters: Sequence[nn.Parameter]) -> Backend:
    expected, best_seconds = _timed(trial, parameters, drawn, LOOP, math.inf)
    best = LOOP
    for backend in _candidates(trial, parameters)[1:]:
        try:
            with warnings.catch_warnings():
                # torch.func warns where it falls back to a slow loop of its own.
                warnings.simplefilter("error")
                found, seconds = _timed(trial, parameters, drawn, backend, best_seconds)
        except (RuntimeError, UnsafeModel, Warning):
            continue  # this network cannot be mapped over patients; the loop takes any
        if seconds < best_seconds and _agree(found, expected):
            best, best_seconds = backend, seconds
    return best


def _is_small(parameters: Sequence[nn.Parameter]) -> bool:
    return sum(p.numel() for p in parameters) < _SMALL


def _few(objective: Objective, parameters: Sequence[nn.Parameter]) -> int:
    """Return how many patients of a large network are side by side.

    On the processor 4 of one image, else 2; a GPU waits for its next order with so few.
    """
    if parameters[0].is_cuda:
        return _ON_GPU
    return max(2, _TRIAL_ITEMS // objective.images_per_patient)


def _candidates(objective: Objective, parameters: Sequence[nn.Parameter]) -> list[Backend]:
    """Return what may be tried: the loop first, the likely best for a small network last."""
    if not _is_small(parameters):
        return [LOOP, Backend("vmap", _few(objective, parameters))]
    several = [LOOP, Backend("vmap", 16), Backend("vmap", _MANY)]
    if linear_layers(objective.model, parameters) is not None:
        several.append(Backend("linear", _MANY))
    return several


def _trial(objective: Objective, most: int) -> tuple[Objective, Drawn]:
    """Return the objective on made-up images of the cohort's shapes, all patients drawn."""
    patients = max(min(most, len(objective.patients)), 1)
    real, items = objective.patients, objective.images_per_patient
    known = real.target if len(real.target) else real.target.new_zeros((1, *real.target.shape[1:]))
    source = torch.arange(patients * items) % len(known)
    generator = torch.Generator().manual_seed(0)
    made_up = Patients(
        image=torch.randn((len(source), *real.image.shape[1:]), generator=generator),
        table=torch.randn((len(source), *real.table.shape[1:]), generator=generator),
        target=known[source],
        patient=torch.arange(patients).repeat_interleave(items),
        pseudonyms=tuple(str(i) for i in range(patients)),
    )
    place = torch.arange(patients * items).reshape(patients, items)
    drawn = Drawn(place=place, items=torch.full((patients,), items))
    return replace(objective, patients=made_up), drawn


def _timed(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    drawn: Drawn,
    backend: Backend,
    limit: float,
) -> tuple[list[Tensor], float]:
    """Return the clipped sum and the seconds of the faster of two trials."""
    total: list[Tensor] = []
    fastest = math.inf
    for _ in range(2):
        total = [torch.zeros_like(p) for p in parameters]
        start = time.perf_counter()
        for several in gradients_by_patient(objective, parameters, drawn, backend):
            factor = clip_factor(patient_norms(several), 1.0, "automatic").float()
            for part, gradient in zip(total, several, strict=True):
                part.add_(torch.tensordot(factor, gradient, dims=1))
        seconds = time.perf_counter() - start
        fastest = min(fastest, seconds)
        if seconds > _HOPELESS * limit:
            break
    return total, fastest


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    error = sum(float((f - e).square().sum()) for f, e in zip(found, expected, strict=True))
    return error <= _AGREEMENT**2 * sum(float(e.square().sum()) for e in expected)
