"""Section `task`: what is learned to be predicted, and what of it is known without torch.

What is done with tensors stands in common/tasks, one module a task.

Imported from here: diagnosis, extension_task, forms, prognosis, regression, segmentation,
    task_config.
May import: common.config.parts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.config.tasks.diagnosis import DiagnosisTask
from common.config.tasks.extension_task import ExtensionTask
from common.config.tasks.prognosis import PrognosisTask
from common.config.tasks.regression import RegressionTask
from common.config.tasks.segmentation import SegmentationTask

Task = Annotated[
    DiagnosisTask | PrognosisTask | SegmentationTask | RegressionTask | ExtensionTask,
    Field(discriminator="kind"),
]
