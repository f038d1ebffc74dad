"""Diagnosis, prognosis, segmentation, regression: targets, losses by item, predictions, statistics.

Imported from here: extension_classes, loss_choice, prognosis, summary, task.
May import: common.config, common.config.parts, common.config.tasks, common.data, common.extensions,
    common.metrics, common.metrics.decisions, common.metrics.times.
"""

from __future__ import annotations

from common.config.run_config import (
    DiagnosisTask,
    ExtensionTask,
    PrognosisTask,
    RegressionTask,
    SegmentationTask,
)
from common.config.run_config import Task as TaskOfRun
from common.tasks.task import Scores, Task, UnusableLabel, paired_difference, patient_weights

__all__ = ["Scores", "Task", "UnusableLabel", "paired_difference", "patient_weights", "task_of"]


def task_of(config: TaskOfRun, spacing: tuple[float, ...] | None = None) -> Task:
    """Return the task that a configuration asks for.

    spacing is the public distance in mm between the voxels that the network sees, where all
    images are brought to one; without it, distances between outlines are in voxels.
    """
    from common.tasks.diagnosis import Diagnosis
    from common.tasks.extension_classes import ExtensionClasses
    from common.tasks.ordinal import Grades
    from common.tasks.regression import Regression
    from common.tasks.segmentation import Segmentation

    match config:
        case SegmentationTask():
            return Segmentation(config=config, spacing=spacing)
        case PrognosisTask():
            return _prognosis(config)
        case DiagnosisTask():
            ordinal = config.type == "ordinal"
            return Grades(config=config) if ordinal else Diagnosis(config=config)
        case RegressionTask():
            return Regression(config=config)
        case ExtensionTask():
            return ExtensionClasses(config=config)


def _prognosis(config: PrognosisTask) -> Task:
    from common.tasks.competing import CompetingRisks
    from common.tasks.prognosis import FixedHorizon, Survival

    match config.outcome:
        case "survival":
            return Survival(config=config)
        case "competing":
            return CompetingRisks(config=config)
        case "fixed_horizon":
            return FixedHorizon(config=config)
