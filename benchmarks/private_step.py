"""The step that hides patients against the plain step on the same images, one thread.

    python benchmarks/private_step.py

16 images of 128 x 128, four of each of four patients; networks with GroupNorm. Bars: at most
1.15 times the plain step's time and 0.7 times its memory. Opacus' own hooks, which clip by image
and so protect no patient, stand beside it where the network can be hooked.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, shown, told

from client.privacy.patient_gradients import Backend, Objective
from client.privacy.private_step import patient_optimizer, private_step
from common.config.run_config import Cohort, DiagnosisTask, Images, Model, NetworkName
from common.data.sample import Patients
from common.models import build_model
from common.privacy.noise import ChaChaNoise
from common.privacy.plan import Mechanism, PrivacyPlan
from common.tasks import task_of

NETWORKS: tuple[NetworkName, ...] = ("densenet121", "resnet18", "unet")
MODES = ("plain", "private", "hooks")
PATIENTS, IMAGES_EACH, SIDE = 4, 4, 128
REPEATS = 5
SLOWEST, LARGEST = 1.15, 0.7
HEAD_STEPS, HEAD_SECONDS = 1000, 2.0


def rows() -> list[Row]:
    """Measure and return the rows."""
    torch.set_num_threads(1)
    found = [row for network in NETWORKS for row in _network_rows(network)]
    seconds = _head_seconds()
    found.append(
        shown(
            Row(
                name=f"{HEAD_STEPS} private steps of a head (s)",
                measured=seconds,
                relation="<=",
                goal=HEAD_SECONDS,
                detail="on cached features of 200 patients",
            )
        )
    )
    return found


def _network_rows(network: NetworkName) -> list[Row]:
    plain, private, hooks = _seconds(network)
    memory = {mode: _growth(network, mode) for mode in MODES}
    slower, larger = private / plain, memory["private"] / memory["plain"]
    hooked = f"Opacus' hooks {hooks / plain:.2f}"
    return [
        shown(
            Row(
                name=f"{network}: private / plain step",
                measured=slower,
                relation="<=",
                goal=SLOWEST,
                detail=f"plain {plain:.3f} s; {hooked}",
            )
        ),
        shown(
            Row(
                name=f"{network}: private / plain memory",
                measured=larger,
                relation="<=",
                goal=LARGEST,
                detail=f"plain {memory['plain']:.0f} MB; Opacus' hooks "
                f"{memory['hooks'] / memory['plain']:.2f}",
            )
        ),
    ]


#: Ours, by label or by pixel: a loss written here would be code of others, and each patient of such
#: a run is set apart (client/privacy/isolation.py), which is another measurement.
item_loss = task_of(DiagnosisTask(kind="diagnosis", target="ill")).item_loss


def _patients(shape: tuple[int, ...], target: tuple[int, ...], patients: int) -> Patients:
    draw = torch.Generator().manual_seed(0)
    count = patients * IMAGES_EACH
    return Patients(
        image=torch.randn((count, *shape), generator=draw),
        table=torch.zeros((count, 0)),
        target=torch.randint(0, 2, (count, *target), generator=draw).float(),
        patient=torch.arange(patients).repeat_interleave(IMAGES_EACH),
        pseudonyms=tuple(str(i) for i in range(patients)),
    )


def _objective(network: NetworkName) -> Objective:
    cohort = Cohort(images=Images(size=(SIDE, SIDE)))
    model = build_model(Model(network=network), cohort, 1, 0).train()
    target = (1, SIDE, SIDE) if network == "unet" else (1,)
    return Objective(
        model=model,
        item_loss=item_loss,
        patients=_patients((1, SIDE, SIDE), target, PATIENTS),
        images_per_patient=IMAGES_EACH,
    )


def _plan(patients: int) -> PrivacyPlan:
    mechanism = Mechanism(
        noise_multiplier=1.0, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=float(patients)
    )
    return PrivacyPlan(
        mechanism=mechanism,
        steps_per_round=1,
        clipping="automatic",
        epsilon=1.0,
        delta=1e-5,
        simulated_noise=False,
    )


def _step(objective: Objective, mode: str) -> Callable[[], None]:
    """Return one step of a mode, as a function."""
    match mode:
        case "plain":
            return _plain(objective)
        case "private":
            return _private(objective, Backend("loop"))
        case _:
            return _hooked(objective)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def _plain(objective: Objective) -> Callable[[], None]:
    optimizer, patients = _sgd(objective.model), objective.patients

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = objective.model(patients.image, patients.table)
        item_loss(output, patients.target).mean().backward()
        optimizer.step()

    return step


def _private(objective: Objective, backend: Backend) -> Callable[[], None]:
    noise = ChaChaNoise()
    optimizer = patient_optimizer(_sgd(objective.model), _plan(len(objective.patients)), noise)
    return lambda: private_step(objective, optimizer, noise, backend)


def _hooked(objective: Objective) -> Callable[[], None]:
    """Return Opacus' step by image; NotImplementedError where its hooks fail."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    patients, model = objective.patients, GradSampleModule(objective.model)
    optimizer = DPOptimizer(
        _sgd(model), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(patients)
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model(patients.image, patients.table)
        item_loss(output, patients.target).mean().backward()
        optimizer.step()

    return step


def _seconds(network: NetworkName) -> tuple[float, float, float]:
    """Return the best seconds of the three modes, taken in turn; nan where a mode fails."""
    steps = [_step(_objective(network), mode) for mode in MODES]
    best = [float("inf")] * len(MODES)
    for turn in range(REPEATS + 1):
        for place, step in enumerate(steps):
            start = time.process_time()
            try:
                step()
            except RuntimeError:  # hooks meet an operation in place
                best[place] = float("nan")
                continue
            if turn:  # the first finds cold caches
                best[place] = min(best[place], time.process_time() - start)
    return best[0], best[1], best[2]


def _growth(network: NetworkName, mode: str) -> float:
    """Return the peak growth in MB of a fresh process in two steps of a mode; nan if it fails."""
    answer = subprocess.run(
        [sys.executable, __file__, network, mode], check=True, capture_output=True, text=True
    )
    return float(answer.stdout.split()[-1])


def _print_growth(network: NetworkName, mode: str) -> None:
    torch.set_num_threads(1)
    step = _step(_objective(network), mode)
    before = _memory_bytes(peak=False)
    try:
        step()
        step()
    except RuntimeError:
        print("nan")
        return
    print((_memory_bytes(peak=True) - before) / 1e6)


def _memory_bytes(*, peak: bool) -> int:
    """Return this process's resident memory, now (and forget the peak) or at its peak since."""
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmHWM:" if peak else "VmRSS:"
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


class _Head(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del table
        output: Tensor = self.linear(image)
        return output


def _head_seconds(patients: int = 200, features: int = 1280) -> float:
    """Return the seconds of full-batch steps of a linear head on cached features."""
    objective = Objective(
        model=_Head(features),
        item_loss=item_loss,
        patients=_patients((features,), (1,), patients),
        images_per_patient=IMAGES_EACH,
    )
    step = _private(objective, Backend("linear", 256))
    step()
    start = time.process_time()
    for _ in range(HEAD_STEPS):
        step()
    return time.process_time() - start


if __name__ == "__main__":
    if len(sys.argv) == 3:  # a fresh process for one measurement of memory
        _print_growth(next(n for n in NETWORKS if n == sys.argv[1]), sys.argv[2])
    else:
        told(rows)
