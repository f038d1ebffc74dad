"""Empty cohorts: a private run goes on with noise alone where nobody can be used."""

from __future__ import annotations

import torch
from torch import Tensor

from common.config.run_config import DiagnosisTask, PrognosisTask, RunConfig
from common.tasks import task_of


def blank_row(config: RunConfig) -> dict[str, str]:
    """Return a row of nobody, for the shape of a target where nobody can be used."""
    task = config.task
    row = dict.fromkeys(task_of(task).columns(), "0")
    if isinstance(task, DiagnosisTask) and task.classes:
        return dict.fromkeys(row, task.classes[0])
    if isinstance(task, PrognosisTask) and task.time is not None:
        row[task.time] = f"{task.horizon or 1}"
    return row


def no_maps(config: RunConfig) -> Tensor:
    """Return label maps of nobody."""
    size = config.cohort.images.size if config.cohort.images is not None else ()
    return torch.zeros((0, *size), dtype=torch.uint8)
