"""Every metric of merged statistics: the task's own, and those of extensions."""

from __future__ import annotations

from common.config.run_config import RunConfig
from common.extensions.metrics import foreign_metrics
from common.metrics.intervals import Estimate
from common.metrics.statistics import Statistics
from common.tasks import task_of


def summarised(config: RunConfig, statistics: Statistics) -> dict[str, Estimate]:
    """Return every metric by name, those of extensions as DISTRIBUTION/NAME."""
    own = task_of(config.task).summarise(statistics, config.evaluation)
    return own | foreign_metrics(config, statistics)
