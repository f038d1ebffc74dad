"""Memory of training on patches, against one step on one patch in memory.

    python benchmarks/patch_memory.py

Volumes of 320 x 320 x 320, of eight patients, and patches of 64 x 64 x 64; U-Net 8-16-32-64, one
thread. Beside it how long a patch is read.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, peak_mb, shown, told

from client.training.batches import batches
from client.training.local_model import open_local_model
from common.config.run_config import parse_config
from common.data.kept_items import write_item
from common.data.sample import Batch, Patients
from common.data.volumes import structure_places, volumes_of

SIDE, PATCH, PATIENTS, STEPS = 320, 64, 8, 3
CONFIG = parse_config(f"""
name: patches
task: {{kind: segmentation, structures: {{lesion: [1]}}}}
cohort: {{images: {{patch: [{PATCH}, {PATCH}, {PATCH}], spacing: [1.0, 1.0, 1.0]}}}}
model: {{network: unet, width: 8}}
training: {{rounds: 1, batch_patients: 4, patches_per_patient: 2}}
privacy: none
""")


def rows() -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        peaks, reads = {}, 0.0
        for arm in ("floor", "patches"):
            ended = subprocess.run(
                [sys.executable, __file__, "--arm", arm, folder],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            peaks[arm], reads = json.loads(ended.stdout.splitlines()[-1])
    detail = ", ".join(f"{arm} {mb:,.0f} MB" for arm, mb in peaks.items())
    ratio = peaks["patches"] / peaks["floor"]
    name = f"training on patches of {PATCH}, peak against one step's"
    return [
        shown(Row(name=name, measured=ratio, relation="<=", goal=1.1, detail=detail)),
        shown(Row(name="a patch is read (ms)", measured=reads, relation="<=", goal=10.0)),
    ]


def _write(folder: Path) -> None:
    values = np.random.default_rng(0).random((1, SIDE, SIDE, SIDE), np.float32)
    labels = (values[0] > 0.99).astype(np.uint8)
    for number in range(PATIENTS):
        write_item(folder / f"{number}.npy", values, bits=16)
        write_item(folder / f"{number}-outline.npy", labels)
        write_item(folder / f"{number}-places.npy", structure_places(labels, number))


def _arm(arm: str, folder: Path) -> None:
    """Take steps, and print the process's peak and the time of reading a patch."""
    torch.set_num_threads(1)
    model, patch = open_local_model(CONFIG, 0), (PATCH, PATCH, PATCH)
    optimizer = torch.optim.AdamW(model.model.parameters())
    paths = [
        tuple(folder / f"{number}{end}.npy" for number in range(PATIENTS))
        for end in ("", "-outline", "-places")
    ]
    image = volumes_of(paths[0], (1,), patch, torch.float32)
    patients = Patients(
        image=image,
        table=torch.zeros(PATIENTS, 0),
        target=volumes_of(paths[1], (), patch, torch.uint8, paths[2]),
        patient=torch.arange(PATIENTS),
        pseudonyms=tuple(map(str, range(PATIENTS))),
    )
    one = Batch(
        image=torch.rand(1, 1, *patch),
        table=torch.zeros(1, 0),
        target=torch.zeros(1, *patch, dtype=torch.uint8),
        patient=torch.zeros(1, dtype=torch.int64),
        weight=torch.ones(1),
    )
    generator = torch.Generator().manual_seed(0)
    steps = (
        [one] * STEPS
        if arm == "floor"
        else batches(patients, 4, 1, STEPS, generator, model.patches)
    )
    for batch in steps:
        optimizer.zero_grad(set_to_none=True)
        model.add_gradient(batch)
        optimizer.step()
    peak = peak_mb()
    seconds = []
    for number in range(20):
        start = time.perf_counter()
        image.part(number % PATIENTS, (10 * number, 7 * number, number))
        seconds.append(time.perf_counter() - start)
    print(json.dumps([peak, 1000 * statistics.median(seconds)]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        _arm(sys.argv[2], Path(sys.argv[3]))
    else:
        told(rows)
