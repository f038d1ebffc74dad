"""The network on a GPU and everything else on the processor, against the processor alone.

    python benchmarks/gpu_step.py

Where there is a GPU. Checks first, ratios after: the GPU's gradients of a patient are the
processor's but for bfloat16, one patient moves the sum before noise by no more than the clip
norm, and a private round of a network ends finite. Not in `make bench`: it needs a GPU.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from private_step import IMAGES_EACH, SIDE, _patients, _plan, item_loss
from row import NotMeasured, Row, shown, told

from client.privacy.clip_and_noise import PatientOptimizer
from client.privacy.patient_gradients import (
    LOOP,
    Backend,
    DrawnPatients,
    Objective,
    gradients_by_patient,
)
from client.privacy.patient_sampling import draw
from client.privacy.private_step import accumulate, patient_optimizer, private_step
from client.training.device import device_of, place
from common.config.run_config import Cohort, Images, Model, NetworkName
from common.data.sample import take
from common.models import build_model
from common.privacy.noise import ChaChaNoise

NETWORKS: tuple[NetworkName, ...] = ("densenet121", "resnet18", "unet")
PATIENTS, REPEATS = 16, 7
#: bfloat16 has 8 bits of mantissa: single gradients differ, directions agree.
LEAST_COSINE = 0.98


def rows() -> list[Row]:
    """Measure and return the rows."""
    if not torch.cuda.is_available():
        message = "a GPU"
        raise NotMeasured(message)
    print(f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}")
    return [row for network in NETWORKS for row in _rows_of(network)]


def _rows_of(network: NetworkName) -> list[Row]:
    here, there = _objective(network, "cpu"), _objective(network, "cuda")
    cosine = min(_cosine(here, there, patient) for patient in range(4))
    moved = _moved(there)
    plain = [_seconds(_plain_step(objective)) for objective in (here, there)]
    private = [_seconds(_private_step(objective, LOOP)) for objective in (here, there)]
    return [
        shown(
            Row(
                name=f"{network}: a patient's gradient, cosine",
                measured=cosine,
                relation=">=",
                goal=LEAST_COSINE,
                detail="on GPU and processor; forward pass "
                + ("bfloat16" if there.model.in_half else "float32"),
            )
        ),
        shown(
            Row(
                name=f"{network}: one patient moves the sum / clip norm",
                measured=moved,
                relation="<=",
                goal=1.0,
            )
        ),
        shown(
            Row(
                name=f"{network}: plain step, GPU / processor",
                measured=plain[1] / plain[0],
                detail=f"{1e3 * plain[1]:.1f} ms against {1e3 * plain[0]:.0f} ms",
            )
        ),
        shown(
            Row(
                name=f"{network}: private step, GPU / processor",
                measured=private[1] / private[0],
                detail=f"{1e3 * private[1]:.1f} ms against {1e3 * private[0]:.0f} ms",
            )
        ),
    ]


def _objective(network: NetworkName, device: str) -> Objective:
    cohort = Cohort(images=Images(size=(SIDE, SIDE)))
    model = build_model(Model(network=network), cohort, 1, 0).train()
    with torch.no_grad():
        draw_from = torch.Generator().manual_seed(1)
        for parameter in model.parameters():  # a head that begins at zero has no gradient below
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw_from))
    target = (1, SIDE, SIDE) if network == "unet" else (1,)
    trial = torch.zeros((4, 1, SIDE, SIDE)), torch.zeros((4, 0))
    return Objective(
        model=place(model, device_of("cpu" if device == "cpu" else "cuda"), trial),
        item_loss=item_loss,
        patients=_patients((1, SIDE, SIDE), target, PATIENTS),
        images_per_patient=IMAGES_EACH,
    )


def _cosine(here: Objective, there: Objective, patient: int) -> float:
    """Return how alike a patient's gradients are, made here and there."""
    one = torch.arange(patient * IMAGES_EACH, (patient + 1) * IMAGES_EACH)
    drawn = DrawnPatients(place=one[None], items=torch.tensor([IMAGES_EACH]))
    flat = []
    for some in (here, there):
        parameters = [p for p in some.model.parameters() if p.requires_grad]
        (found,) = gradients_by_patient(some, parameters, drawn, LOOP)
        flat.append(torch.cat([value.flatten().cpu() for value in found]))
    return float(torch.dot(*flat) / (flat[0].norm() * flat[1].norm()))


def _clipped(objective: Objective) -> Tensor:
    optimizer = _optimizer(objective)
    noise = ChaChaNoise()
    drawn = draw(objective.patients, 1.0, IMAGES_EACH, noise)
    accumulate(objective, optimizer, drawn, noise, LOOP)
    return torch.cat([part.flatten() for part in optimizer.clipped_sum()]).cpu()


def _moved(objective: Objective) -> float:
    """Return the largest change of the sum that one of some patients makes, huge images too."""
    patients = objective.patients
    loud = replace(objective, patients=replace(patients, image=patients.image * 1e3))
    found = []
    for some in (objective, loud):
        whole = _clipped(some)
        for left_out in (0, PATIENTS - 1):
            keep = [i for i in range(PATIENTS) if i != left_out]
            items = torch.isin(some.patients.patient, torch.tensor(keep))
            batch = take(some.patients, torch.nonzero(items).flatten())
            fewer = replace(
                some.patients,
                image=batch.image,
                table=batch.table,
                target=batch.target,
                patient=batch.patient,
                pseudonyms=tuple(some.patients.pseudonyms[i] for i in keep),
            )
            found.append(float((whole - _clipped(replace(some, patients=fewer))).norm()))
    return max(found) if all(map(math.isfinite, found)) else math.inf


def _optimizer(objective: Objective) -> PatientOptimizer:
    plain = torch.optim.SGD([p for p in objective.model.parameters() if p.requires_grad], lr=1e-4)
    return patient_optimizer(plain, _plan(PATIENTS), ChaChaNoise())


def _plain_step(objective: Objective) -> Callable[[], None]:
    plain = torch.optim.SGD([p for p in objective.model.parameters() if p.requires_grad], lr=1e-4)
    patients = objective.patients

    def step() -> None:
        plain.zero_grad(set_to_none=True)
        output = objective.model(patients.image, patients.table)
        objective.item_loss(output, patients.target).mean().backward()
        plain.step()

    return step


def _private_step(objective: Objective, backend: Backend) -> Callable[[], None]:
    optimizer, noise = _optimizer(objective), ChaChaNoise()
    return lambda: private_step(objective, optimizer, noise, backend)


def _seconds(step: Callable[[], None]) -> float:
    times: Sequence[float] = [_timed(step) for _ in range(REPEATS + 1)][1:]
    return statistics.median(times)


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    told(rows)
