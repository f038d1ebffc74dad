"""What a site's home adds to a model: table, calibration, withdrawals."""

from __future__ import annotations

from pathlib import Path

from client.cohort.column_check import numbers_of
from client.inference.calibration.site_calibration import load_calibration
from client.inference.study_reading import table_columns
from client.inference.trained_model import Local, TrainedModel
from client.labels.label_table import Labels, read_labels
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.withdrawals import withdrawn
from common.config.run_config import RunConfig


def local_of(
    home: Home, model: TrainedModel, *, explain: bool = True, abstain: bool = True
) -> Local:
    """Return what the site adds to the model.

    ConfigurationError when the model takes clinical columns and there is no site.yaml that names
    a table; CohortError when the table lacks a column; StateDamaged when a record of the site
    cannot be trusted.
    """
    refused = withdrawn(home)
    return Local(
        labels=_labels(home, model.config),
        withdrawn=refused,
        aliases=load_site_config(home.site_yaml).series_aliases if home.site_yaml.is_file() else {},
        calibration=load_calibration(home.calibration, model.name.weights, refused),
        explain=explain,
        abstain=abstain,
    )


def _labels(home: Home, config: RunConfig) -> Labels | None:
    if config.cohort.table is None:
        return None  # images alone: no site.yaml is needed
    return labels_for(load_site_config(home.site_yaml).labels_csv, config)


def labels_for(table: Path, config: RunConfig) -> Labels:
    """Read a table for the clinical columns that a model takes; CohortError where one lacks."""
    return read_labels(
        table,
        table_columns(config),
        with_images=config.cohort.images is not None,
        numbers=numbers_of(config),
    )
