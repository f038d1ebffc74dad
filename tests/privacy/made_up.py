"""Made-up patients, networks and plans that the tests of privacy share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy.charge_text import BoundTo, Charge
from client.privacy.ledger import Ledger, Limit
from client.privacy.patient_gradients import Objective
from common.data.kept_items import ItemFiles, write_item
from common.data.sample import Patients
from common.data.volumes import structure_places, volumes_of
from common.privacy.plan import Mechanism, PrivacyPlan, Spend

#: Items of each made-up patient: some have one, some more than are used in a step.
ITEMS = (1, 3, 2, 5, 1, 2)
SIDE, COLUMNS = 16, 4


def patients_of(
    items: Sequence[int] = ITEMS, image: tuple[int, ...] = (1, SIDE, SIDE), seed: int = 0
) -> Patients:
    """Return patients with so many items each, standard normal images and 0/1 targets."""
    draw = torch.Generator().manual_seed(seed)
    count = sum(items)
    return Patients(
        image=torch.randn((count, *image), generator=draw),
        table=torch.randn((count, COLUMNS), generator=draw),
        target=torch.randint(0, 2, (count, 1), generator=draw).float(),
        patient=torch.repeat_interleave(torch.arange(len(items)), torch.tensor(items)),
        pseudonyms=tuple(f"patient {i}" for i in range(len(items))),
    )


def with_images(patients: Patients, image: Tensor, table: Tensor | None = None) -> Patients:
    """Return the same patients with other pixels, and another table if one is given."""
    return Patients(
        image=image,
        table=patients.table if table is None else table,
        target=patients.target,
        patient=patients.patient,
        pseudonyms=patients.pseudonyms,
    )


def without(patients: Patients, left_out: int) -> Patients:
    """Return the patients but one."""
    stay = patients.patient != left_out
    owner = patients.patient[stay]
    return Patients(
        image=patients.image[stay],
        table=patients.table[stay],
        target=patients.target[stay],
        patient=owner - (owner > left_out).long(),
        pseudonyms=tuple(n for i, n in enumerate(patients.pseudonyms) if i != left_out),
    )


def binary_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return one loss an item, (items,)."""
    losses = nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")
    return losses.flatten(1).mean(1)


class TableNet(nn.Module):
    """Reads the table alone: linear layers only."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(COLUMNS, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return one logit an item."""
        del image
        output: Tensor = self.body(table)
        return output


class FlatNet(nn.Module):
    """One linear layer on all values of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return one logit an item."""
        del table
        output: Tensor = self.head(image.flatten(1))
        return output


class ImageNet(nn.Module):
    """Two convolutions and whatever norm is given; in place of a real network."""

    def __init__(self, norm: nn.Module | None = None, *, frozen_body: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2),
            norm or nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2, padding_mode="reflect", padding=1),
        )
        self.head = nn.Linear(4, 1)
        self.body.requires_grad_(not frozen_body)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return one logit an item."""
        del table
        output: Tensor = self.head(self.body(image).flatten(2).mean(2))
        return output


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return a network with the initial weights of a seed; the global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build().train()


def objective_of(model: nn.Module, patients: Patients, most: int = 4) -> Objective:
    """Return binary diagnosis with up to `most` items of a patient in a step."""
    return Objective(model=model, item_loss=binary_loss, patients=patients, images_per_patient=most)


def mechanism_of(
    noise_multiplier: float = 1.0,
    *,
    sampling_rate: float = 1.0,
    steps: int = 10,
    clip_norm: float = 1.0,
    divisor: float = 10.0,
) -> Mechanism:
    """Return a mechanism with the usual figures where none are given."""
    return Mechanism(
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
        steps=steps,
        clip_norm=clip_norm,
        divisor=divisor,
    )


def plan_of(
    mechanism: Mechanism | None = None,
    clipping: Literal["automatic", "flat"] = "flat",
    steps_per_round: int = 1,
) -> PrivacyPlan:
    """Return a plan around a mechanism; its epsilon is not what these tests look at."""
    return PrivacyPlan(
        mechanism=mechanism or mechanism_of(),
        steps_per_round=steps_per_round,
        clipping=clipping,
        epsilon=1.0,
        delta=1e-5,
        simulated_noise=False,
    )


class Silence:
    """No noise at all, and draws that repeat: a way to look at what noise would hide."""

    simulated = True

    def __init__(self, seed: int = 0) -> None:
        self._draw = torch.Generator().manual_seed(seed)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return zeros."""
        del standard_deviation
        return torch.zeros(shape, dtype=torch.float64)

    def uniform(self, count: int) -> Tensor:
        """Return repeatable draws."""
        return torch.rand(count, generator=self._draw, dtype=torch.float64)

    def of_round(self, run: str, round_number: int) -> Silence:
        """Return this very source."""
        del run, round_number
        return self


def charged(  # noqa: PLR0913 - the facts of a charge, in the order of its columns
    ledger: Ledger,
    cohort: str,
    run: str,
    number: int,
    mechanism: Mechanism,
    limit: Limit,
    delta: float,
    bound: BoundTo | None = None,
) -> Spend:
    """Charge to a ledger; without `bound` as release 0.1.0 did."""
    charge = Charge(
        cohort=cohort, run=run, round=number, attempt=1, mechanism=mechanism, bound=bound
    )
    return ledger.charge(charge, limit, delta)


def on_disk(patients: Patients, folder: Path, *, bits: int = 32) -> Patients:
    """Return the same patients with their images in files, read when they are asked for."""
    names = tuple(f"{number}.npy" for number in range(len(patients.image)))
    for name, image in zip(names, patients.image[:], strict=True):
        write_item(folder / name, image.numpy(), bits=bits)
    shape = patients.image.shape[1:]
    files = ItemFiles(folder=folder, names=names, item=shape, kind=torch.float32)
    return replace(patients, image=files)


def volumes_of_patients(
    folder: Path,
    items: Sequence[int] = ITEMS,
    patch: tuple[int, ...] = (8, 8),
    *,
    loud: float = 1.0,
    seed: int = 0,
) -> Patients:
    """Return patients with so many outlined images each, of extents of their own, in files."""
    draw = np.random.default_rng(seed)
    owner = torch.repeat_interleave(torch.arange(len(items)), torch.tensor(items))
    images, maps, places = [], [], []
    for number in range(len(owner)):
        extent = tuple(side + int(draw.integers(0, 9)) for side in patch)
        values = loud * draw.standard_normal((1, *extent)).astype(np.float32)
        labels = (values[0] > loud).astype(np.uint8)
        kept = [folder / f"{number}{end}.npy" for end in ("", "-outline", "-places")]
        write_item(kept[0], values)
        write_item(kept[1], labels)
        write_item(kept[2], structure_places(labels, 0))
        for held, path in zip((images, maps, places), kept, strict=True):
            held.append(path)
    return Patients(
        image=volumes_of(tuple(images), (1,), patch, torch.float32),
        table=torch.zeros(len(owner), 0),
        target=volumes_of(tuple(maps), (), patch, torch.uint8, tuple(places)),
        patient=owner,
        pseudonyms=tuple(f"patient {i}" for i in range(len(items))),
    )
