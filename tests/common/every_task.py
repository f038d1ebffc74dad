"""One of every task, with made-up outputs and targets."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from common.config.run_config import Evaluation, RegressionTask
from common.config.tasks import Task as AnyTask
from common.tasks import Scores, Task, task_of
from common.tasks.prognosis import encode_time

CONFIGS: dict[str, dict[str, object]] = {
    "binary": {"kind": "diagnosis", "target": "ill"},
    "multiclass": {
        "kind": "diagnosis",
        "type": "multiclass",
        "target": "kind",
        "classes": ("a", "b", "c"),
    },
    "grades": {
        "kind": "diagnosis",
        "type": "ordinal",
        "target": "grade",
        "classes": ("none", "mild", "moderate", "severe"),
    },
    "multilabel": {"kind": "diagnosis", "type": "multilabel", "target": ("wet", "cold")},
    "proportional": {
        "kind": "prognosis",
        "time": "months",
        "intervals": (3.0, 6.0, 12.0, 24.0),
        "horizon": 12.0,
    },
    "free": {
        "kind": "prognosis",
        "time": "months",
        "intervals": (3.0, 6.0, 12.0, 24.0),
        "hazards": "free",
    },
    "competing": {
        "kind": "prognosis",
        "outcome": "competing",
        "time": "months",
        "causes": ("relapse", "death"),
        "intervals": (3.0, 6.0, 12.0, 24.0),
        "horizon": 12.0,
    },
    "fixed_horizon": {
        "kind": "prognosis",
        "outcome": "fixed_horizon",
        "time": "months",
        "horizon": 12.0,
    },
    "number": {"kind": "regression", "target": "ef", "range": (0.0, 100.0), "unit": "%"},
    "squared": {"kind": "regression", "target": "age", "range": (-1.0, 3.0), "loss": "mse"},
    "outline": {"kind": "segmentation"},
    "outlines": {"kind": "segmentation", "structures": {"front": (1,), "back": (2,)}},
    "volume": {"kind": "segmentation", "structures": {"front": (1,), "back": (2,)}},
}
_SHAPES = {"outline": (10, 12), "outlines": (10, 12), "volume": (6, 7, 8)}


def made(kind: str) -> Task:
    """Return a task."""
    return task_of(config_of(kind))


def config_of(kind: str) -> AnyTask:
    """Return a task as a configuration gives it."""
    found: AnyTask = TypeAdapter(AnyTask).validate_python(CONFIGS[kind])
    return found


def outputs_and_targets(kind: str, items: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return what a network that has learned something would give, and the truth."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def whole(below: int, *shape: int) -> Tensor:
        return torch.randint(0, below, shape, generator=generator)

    labels = made(kind).outputs
    match kind:
        case "proportional" | "free":
            risk = normal(items, 1)
            chance = torch.empty(items).exponential_(generator=generator)
            death = 15 * chance * torch.exp(-risk[:, 0])
            lost = 1 + 40 * torch.rand(items, generator=generator)
            edges = np.array([3.0, 6.0, 12.0, 24.0])
            rows = [
                encode_time(min(d, c), float(d <= c), edges)
                for d, c in zip(death.tolist(), lost.tolist(), strict=True)
            ]
            return risk - 2 + 0.1 * normal(items, 4), torch.from_numpy(
                np.stack(rows) if rows else np.zeros((0, 10), np.float32)
            )
        case "competing":
            risk = normal(items, 2)
            chance = torch.empty(items, 2).exponential_(generator=generator)
            times = 25 * chance * torch.exp(-1.5 * risk)
            lost = 1 + 40 * torch.rand(items, generator=generator)
            ends = torch.cat([lost[:, None], times], dim=1)
            causes = ends.argmin(dim=1).tolist()
            names = ("0", "relapse", "death")
            encoded = [
                made(kind).encode({"event": names[c], "months": f"{float(row[c])}"})
                for c, row in zip(causes, ends, strict=True)
            ]
            output = (risk[:, :, None] - 2.5 + 0.1 * normal(items, 2, 4)).flatten(1)
            target = np.stack(encoded) if encoded else np.zeros((0, 10), np.float32)
            return output, torch.from_numpy(target)
        case "multiclass":
            target = torch.eye(3)[whole(3, items)]
        case "grades":
            score = normal(items, 1)
            cuts = torch.tensor([0.8, -0.2, -0.9])
            grade = (2 * score + cuts + 0.5 * normal(items, 1) > 0).sum(dim=1)
            return 2 * score + cuts + 0.1 * normal(items, 1), torch.eye(4)[grade]
        case "multilabel":
            target = whole(2, items, 2).float()
            target[whole(4, items) == 0, 1] = torch.nan
        case "binary" | "fixed_horizon":
            target = whole(2, items, 1).float()
        case "number" | "squared":
            config = config_of(kind)
            assert isinstance(config, RegressionTask)
            scaled = normal(items, 1).clamp(-2, 2)
            return scaled + 0.5 * normal(items, 1), config.middle + config.step * scaled
        case _:
            target = torch.zeros((items, *_SHAPES[kind]), dtype=torch.uint8)
            target[..., 2:6, 3:7] = whole(labels, items, *[1] * len(_SHAPES[kind])).to(torch.uint8)
            truth = torch.nn.functional.one_hot(target.long(), labels).movedim(-1, 1)
            return 3 * truth + normal(*truth.shape), target
    return 2 * torch.nan_to_num(target) - 1 + normal(*target.shape), target


def scored(kind: str, items: int, seed: int = 0, owner: Tensor | None = None) -> Scores:
    """Return scores as a site has them."""
    task = made(kind)
    output, target = outputs_and_targets(kind, items, seed)
    return Scores(
        prediction=task.predict(output),
        target=target,
        loss=task.item_loss(output, target),
        owner=owner,
    )


def rules(*, count_noise: float = 0.0, smallest_cell: int = 5) -> Evaluation:
    """Return the rules of a run."""
    return Evaluation(count_noise=count_noise, smallest_cell=smallest_cell, bootstrap=50)
