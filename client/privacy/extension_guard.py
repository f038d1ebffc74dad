"""Guard of the per-patient bound against what an extension may do, tried on made-up items.

    not finite on an empty, an even, a very bright image   refused: such patients would not count
    gradient of one item follows the items beside it       refused, from a leak of 1e-3 on
    answer follows what was seen before (a plain attribute,
    a global, an autograd function that counts)            refused
    code that reads, keeps or sends images on purpose      NOT seen here: docs/extensions.md

Public: check_finite, check_gradients.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from client.privacy.patient_gradients import Objective
from common.data.sample import Patients
from common.platform.errors import UnsafeModel

#: How much other items are changed.
CONTRAST = 100.0
#: How little a gradient may follow them. A batch mean that leaks at 1e-3 moves it by some 1e-4.
_TOLERANCE = 1e-5
#: How far weights are moved from their start, and how bright the brightest image is.
_STEP = 0.02
_BRIGHT = 1e4


def check_finite(trial: Objective) -> None:
    """Refuse a network that is not finite on images that occur: empty, even, very bright."""
    patients = trial.patients
    for what, value in (("0", 0.0), ("1", 1.0), (f"{_BRIGHT:g}", _BRIGHT)):
        image, table = torch.full_like(patients.image, value), torch.zeros_like(patients.table)
        found = _answer(trial, replace(patients, image=image, table=table), 0)
        if not all(bool(torch.isfinite(part).all()) for part in found):
            message = (
                f"The network's answer or gradient on an image that is {what} everywhere is not "
                "finite: such patients would not count in training. Divide by nothing that can be "
                "0, or add a small number to it."
            )
            raise UnsafeModel(message)


def check_gradients(trial: Objective) -> None:
    """Refuse a gradient that follows the items beside it, or what the network saw before.

    On weights that were moved from their start, where an output layer of zeros hides nothing.
    """
    patients = trial.patients
    others = torch.full((len(patients),), CONTRAST)
    others[0] = 1.0
    loud = replace(
        patients, image=scaled(patients.image, others), table=scaled(patients.table, others)
    )
    bright = replace(patients, image=CONTRAST * patients.image)
    fresh, used = (replace(trial, model=_moved(trial.model)) for _ in range(2))
    expected = _answer(fresh, patients, 0)
    _answer(used, bright, len(patients) - 1)
    for found, fault in (
        (_answer(fresh, loud, 0), "gives one item another gradient beside other items"),
        (_answer(used, patients, 0), "remembers what it saw before, outside its buffers"),
        (_answer(fresh, patients, 0), "remembers what it saw before, outside its buffers"),
    ):
        if not all(map(_very_close, found, expected)):
            message = f"The network {fault}: a patient's part could not be clipped."
            raise UnsafeModel(message)


def _moved(model: nn.Module) -> nn.Module:
    """Return a copy with other weights, the same each time."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in copied.parameters():
            step = torch.randn(value.shape, generator=generator) * _STEP
            value.add_(step.to(value.device))
    return copied


def _answer(trial: Objective, patients: Patients, item: int) -> tuple[Tensor, Tensor]:
    """Return one item's output and the gradient of its loss, among the others of a batch."""
    parameters = [p for p in trial.model.parameters() if p.requires_grad]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        output = trial.model(patients.image, patients.table)
        loss = trial.item_loss(output, patients.target)[item]
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return output[item].detach(), torch.cat([part.flatten() for part in found])


def scaled(values: Tensor, scale: Tensor) -> Tensor:
    """Return each item times its own number."""
    return values * scale.reshape(-1, *[1] * (values.dim() - 1))


def _very_close(found: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * largest + 1e-9)
