"""A run's bundle at a hospital: it opens, and says whom it was trained on here."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.inference.calibration.site_calibration import hashed
from client.inference.calibration.trained_on import note_trained, trained_on
from client.inference.trained_model import open_model
from server.bundle.export import export
from tests.server.bundle.test_export import config_of, finished


@pytest.mark.slow
def test_an_exported_model_opens_and_names_the_run_as_its_sites_noted_it(tmp_path: Path) -> None:
    """By the configuration in force and the seed, which every request to a site carries."""
    config = config_of().in_force()
    run = finished(tmp_path, config)
    note_trained(tmp_path / "trained", config.fingerprint(), 7, ["P1", "P2"])
    export(run.path, tmp_path / "bundle")
    model = open_model(tmp_path / "bundle")
    noted = trained_on(tmp_path / "trained", model.name.fingerprint, model.seed)
    assert noted == hashed(["P1", "P2"])
