"""Outlines by patches against outlines of the resized volume, in the same processor time.

    python benchmarks/patch_segmentation.py FOLDER [SECONDS]

FOLDER has one folder a hospital, as `wardround-simulate` takes it: brats-six (six gliomas, masks of
four parts, which are one structure here) or glioma-mr (39 gliomas of thick slices, three sequences
as channels, as in its configuration). Three folds of all patients; both are measured on the
volume's own grid. Beside it how much the overlap of the windows moves the Dice.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import NotMeasured, Row, shown, told

from client.cohort.loading import load_cohort
from client.cohort.site_cohort import patients_at
from client.dicom.reading.volume import Turn
from client.inference.grid import FrameOrigin, source_labels
from client.site.cache import Cache
from client.training.batches import batches
from client.training.local_model import LocalModel, open_local_model
from common.config.run_config import Images, RunConfig, parse_config
from common.data.augmentation import augment
from common.data.kept_items import pieces
from common.data.sample import Patients
from common.data.volumes import Volumes
from common.metrics.dice import dice_by_item
from common.models.windows import slid
from common.tasks import task_of
from simulations.comparison.arms import joined

SECONDS, FOLDS = 40.0, 3
RATE = 3e-3
TEXT = """
name: patches
task: {kind: segmentation, mask: mask, structures: {tumour: [1, 2, 3, 4]}}
cohort: {images: {IMAGES}, smallest_cohort: 1}
model: {network: unet, width: 8}
training: {rounds: 1, batch_patients: 1, patches_per_patient: 1, augment: true}
evaluation: {smallest_cell: 1}
privacy: none
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cohort, and the grids on which it is tried."""

    images: str  # of cohort.images, with the name GRID
    spacing: tuple[float, float, float]  # mm of the masks' own grid
    patches: str
    resized: str

    def grids(self) -> Mapping[str, str]:
        """Return what stands for GRID in each arm, and for the masks as they were given."""
        own = f"spacing: {list(self.spacing)}"
        return {
            "patches": self.patches,
            "resized": self.resized,
            "given": f"patch: [8, 8, 8], {own}",
        }


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The given outlines of all patients, on their own grid."""

    maps: tuple[Tensor, ...]
    spacing: tuple[float, float, float]  # mm


def _series() -> str:
    """Return the rules of the sequences, as the shipped configuration has them."""
    shipped = Path(__file__).parents[1] / "configs/simulations/glioma-mr.yaml"
    images = yaml.safe_load(shipped.read_text())["cohort"]["images"]
    return f"series: {json.dumps(images['series'])}, drop_channels: {images['drop_channels']}"


CASES = {
    "brats-six": Case(
        images="GRID, intensity: zscore, modalities: [MR]",
        spacing=(1.0, 1.0, 1.0),
        patches="patch: [64, 64, 64], spacing: [2.0, 2.0, 2.0]",
        resized="size: [64, 64, 64]",
    ),
    "glioma-mr": Case(
        images=f"GRID, intensity: zscore, {_series()}",
        spacing=(5.0, 1.875, 1.875),
        patches="patch: [16, 96, 96], spacing: [5.0, 1.875, 1.875]",
        resized="size: [32, 112, 112], fit: letterbox",  # as the configuration has it
    ),
}


def rows() -> list[Row]:
    """Measure and return the rows."""
    if len(sys.argv) == 1 or Path(sys.argv[1]).name not in CASES:
        message = f"a folder of one of {', '.join(CASES)} as its argument"
        raise NotMeasured(message)
    folder = Path(sys.argv[1])
    budget = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    torch.set_num_threads(1)
    case = CASES[folder.name]
    configs = {arm: _config(case, grid) for arm, grid in case.grids().items()}
    with tempfile.TemporaryDirectory() as cache:
        held = {arm: _patients(folder, config, Path(cache)) for arm, config in configs.items()}
        given = held["given"].target
        truth = Truth(maps=tuple(one[0] for one in pieces(given)), spacing=case.spacing)
        dice: dict[str, list[float]] = {"patches": [], "resized": [], "overlap .75": []}
        for fold in range(FOLDS):
            everybody = range(len(truth.maps))
            test = [n for n in everybody if n % FOLDS == fold]
            train = [n for n in everybody if n % FOLDS != fold]
            for arm in ("patches", "resized"):
                config = configs[arm]
                model, steps = _trained(config, patients_at(held[arm], train), budget, fold)
                own = _measured(model, held[arm], truth, test, 0.5)
                dice[arm] += own
                if arm == "patches" and fold == 0:  # five times as many windows
                    again = _measured(model, held[arm], truth, test[:1], 0.75)
                    dice["overlap .75"] += [abs(a - b) for a, b in zip(own, again, strict=False)]
                print(f"fold {fold}, {arm}: {steps} steps, {np.round(own, 3)}", flush=True)
    moved = max(dice.pop("overlap .75"))
    mean = {arm: statistics.mean(values) for arm, values in dice.items()}
    beside = ", ".join(f"{arm} {value:.3f}" for arm, value in mean.items())
    name = f"Dice by patches less that of the resized, {budget:g} s"
    gained = mean["patches"] - mean["resized"]
    return [
        shown(Row(name=name, measured=gained, relation=">=", goal=0.0, detail=beside)),
        shown(Row(name="Dice, overlap .75 against .5", measured=moved, relation="<=", goal=0.01)),
    ]


def _config(case: Case, grid: str) -> RunConfig:
    text = TEXT if "patch" in grid else TEXT.replace(" patches_per_patient: 1,", "")
    return parse_config(text.replace("IMAGES", case.images.replace("GRID", grid)))


def _patients(folder: Path, config: RunConfig, cache: Path) -> Patients:
    task = task_of(config.task)
    sites = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [load_cohort(site, config, task, Cache(cache)).items for site in sites]
    return joined(found)


def _trained(
    config: RunConfig, patients: Patients, budget: float, seed: int
) -> tuple[LocalModel, int]:
    """Return a network after so many seconds of the processor, its rate falling to 0 by then."""
    model, generator = open_local_model(config, seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=RATE)
    start, steps = time.process_time(), 0
    for batch in batches(patients, 1, 1, 100_000, generator, model.patches):
        used = (time.process_time() - start) / budget
        if used >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - used)
        image, target = augment(batch.image, batch.target, generator, outlines=True)
        optimizer.zero_grad(set_to_none=True)
        model.add_gradient(batch._replace(image=image, target=target))
        optimizer.step()
        steps += 1
    return model, steps


def _measured(
    model: LocalModel, patients: Patients, truth: Truth, test: list[int], overlap: float
) -> list[float]:
    """Return each patient's Dice on the volume's own grid."""
    found = []
    model.model.eval()
    for number in test:
        given = truth.maps[number]
        with torch.inference_mode():
            output = _output(model, patients, number, overlap)
        images = model.config.cohort.images or Images(size=(1, 1, 1))
        labels = source_labels(output, _place(tuple(given.shape), truth.spacing), images)
        found.append(float(dice_by_item(labels[None], given[None].numpy(), 1)[0, -1]))
    model.model.train()
    return found


def _output(model: LocalModel, patients: Patients, number: int, overlap: float) -> Tensor:
    table = torch.zeros(1, 0)

    def ask(image: Tensor) -> Tensor:
        output: Tensor = model.model(image, table)
        return output

    if isinstance(patients.image, Volumes):
        whole = patients.image.whole(number)[None]
        return slid(ask, whole, patients.image.patch, overlap)[0]
    return ask(patients.image[number][None])[0]


def _place(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> FrameOrigin:
    return FrameOrigin(
        sources=(Path("x"),),
        frames=(shape[0],),
        planes=tuple((0, n) for n in range(shape[0])),
        turn=Turn(transposed=False, flipped=()),
        shape=shape,
        spacing=spacing,
    )


if __name__ == "__main__":
    told(rows)
