"""Diagnosis, prognosis, segmentation: targets, losses by item, predictions, statistics."""

from __future__ import annotations

from common.config import DiagnosisTask, PrognosisTask, SegmentationTask
from common.tasks.task import Task, UnusableLabel

__all__ = ["Task", "UnusableLabel", "task_of"]


def task_of(config: DiagnosisTask | PrognosisTask | SegmentationTask) -> Task:
    """Return the task that a configuration asks for."""
    from common.tasks.diagnosis import Diagnosis
    from common.tasks.prognosis import FixedHorizon, Survival
    from common.tasks.segmentation import Segmentation

    match config:
        case DiagnosisTask():
            return Diagnosis(config=config)
        case PrognosisTask(outcome="survival"):
            return Survival(config=config)
        case PrognosisTask():
            return FixedHorizon(config=config)
        case SegmentationTask():
            return Segmentation(config=config)
