"""Memory of training on a cohort that stays on disk, against the same cohort in memory.

    python benchmarks/large_cohort.py [IMAGES]

20,000 invented images of 224 x 224 in 16 bits a value, 4 GB as a run reads them; a small CNN, steps
of 16 patients, one thread. Beside it the floor, the same steps on 64 images in memory, and cohorts
of 64 x 64, which stay in memory as long as they take less than 256 MiB.
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
from common.config.run_config import Cohort, DiagnosisTask, Images, Model
from common.data.kept_items import ItemFiles, held, in_memory, write_item
from common.data.sample import Patients, patient_loss
from common.models import build_model
from common.tasks import task_of

IMAGES = 20_000
STEPS, BATCH = 100, 16
MOST_MB, OVER_FLOOR, SLOWER = 2048.0, 1.1, 1.02


def rows() -> list[Row]:
    """Measure and return the rows."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    found = []
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), count, 224, 16)
        arms = {arm: _measured(arm, folder, count, 224) for arm in ("floor", "disk", "memory")}
        peak = {arm: megabytes for arm, (megabytes, _) in arms.items()}
        beside = ", ".join(f"{arm} {mb:,.0f} MB" for arm, mb in peak.items())
        name = f"{count:,} images of 224 px on disk, peak (MB)"
        found.append(
            shown(Row(name=name, measured=peak["disk"], relation="<=", goal=MOST_MB, detail=beside))
        )
        name, ratio = "the same, peak against the floor's", peak["disk"] / peak["floor"]
        found.append(shown(Row(name=name, measured=ratio, relation="<=", goal=OVER_FLOOR)))
        name, ratio = (
            "the same, time of a step against memory's",
            arms["disk"][1] / arms["memory"][1],
        )
        found.append(shown(Row(name=name, measured=ratio)))
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), 2000, 64, 32)
        pairs = [
            (_measured("memory", folder, 2000, 64)[1], _measured("held", folder, 2000, 64)[1])
            for _ in range(5)
        ]
        name = "2,000 images of 64 px, time of a step against memory's"
        ratio = min(ours for _, ours in pairs) / min(theirs for theirs, _ in pairs)
        found.append(shown(Row(name=name, measured=ratio, relation="<=", goal=SLOWER)))
    return found


def _write(folder: Path, count: int, side: int, bits: int) -> None:
    """Write images that are views of one sheet of noise, so that writing them takes a minute."""
    sheet = np.random.default_rng(0).random((1, 2 * side, 2 * side), np.float32)
    places = np.random.default_rng(1).integers(0, side, (count, 2))
    for number, (row, column) in enumerate(places):
        view = np.ascontiguousarray(sheet[:, row : row + side, column : column + side])
        write_item(folder / f"{number}.npy", view, bits=bits)


def _measured(arm: str, folder: str, count: int, side: int) -> tuple[float, float]:
    """Return peak megabytes and seconds a step of a process of its own."""
    ended = subprocess.run(
        [sys.executable, __file__, "--arm", arm, folder, str(count), str(side)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    megabytes, seconds = json.loads(ended.stdout.splitlines()[-1])
    return megabytes, seconds


def _arm(arm: str, folder: Path, count: int, side: int) -> None:
    """Train some steps, and print the process's peak and the median step."""
    torch.set_num_threads(1)
    count = 64 if arm == "floor" else count
    names = tuple(f"{number}.npy" for number in range(count))
    files = ItemFiles(
        folder=folder, names=names, item=torch.Size((1, side, side)), kind=torch.float32
    )
    target = (torch.arange(count) % 2)[:, None].float()
    patients = Patients(
        image=files if arm == "disk" else held(files) if arm == "held" else in_memory(files),
        table=torch.zeros(count, 0),
        target=target,
        patient=torch.arange(count),
        pseudonyms=tuple(map(str, range(count))),
    )
    task = task_of(DiagnosisTask(kind="diagnosis", target="ill"))
    cohort = Cohort(images=Images(size=(side, side)))
    model = build_model(Model(network="small_cnn"), cohort, task.outputs, 0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps, seconds = STEPS if side > 64 else 3 * STEPS, []
    start = time.perf_counter()
    for batch in batches(patients, BATCH, 1, steps, torch.Generator().manual_seed(0)):
        optimizer.zero_grad(set_to_none=True)
        patient_loss(
            task.item_loss(model(batch.image, batch.table), batch.target), batch
        ).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    print(json.dumps([peak_mb(), statistics.median(seconds)]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        _arm(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        told(rows)
