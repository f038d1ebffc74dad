"""A coordinator is restored from an older backup, at another address, while its sites go on."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch

from server.files.coordinator_yaml import host_and_port, load_settings
from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import federation
from tests.end_to_end.link import Link
from tests.end_to_end.processes import free_port, until

pytestmark = pytest.mark.slow

LONG = 180.0


def test_a_coordinator_from_before_some_rounds_goes_on_elsewhere_and_nobody_is_charged_twice(
    tmp_path: Path,
) -> None:
    """East is told of the move by mail; west was off, and finds the old address leading there."""
    with federation(tmp_path, write_tables(tmp_path / "data", ("east", "west"))) as two:
        coordinator, east, west = two.coordinator, two.sites["east"], two.sites["west"]
        old = coordinator.address
        config = table_config(tmp_path, rounds=5, more={"privacy": PRIVATE}, size=Size(steps=2))
        run = coordinator.run(config)
        run.saved(2, LONG)
        west.program.stop()  # else the last round may be over before the command has begun
        backup = tmp_path / "backup.tar"
        coordinator.type("backup", str(backup))
        west.start()
        assert run.end(LONG) == "done"
        weights, charges = run.result().weights, (east.charges, west.charges)
        west.program.stop()
        coordinator.program.stop()
        # Its machine is lost. The backup knows nothing of the later rounds, nor of the move.
        shutil.rmtree(coordinator.folder.path)
        coordinator.type("restore", str(backup), "--yes")
        assert run.state == "running"
        assert 2 <= run.rounds() < 5
        new = f"127.0.0.1:{free_port()}"
        line = coordinator.type("move", new).split()[-1]
        settings = load_settings(coordinator.folder.settings)
        assert settings.address == settings.listen == new
        coordinator.start()
        assert new in east.type("move", line)
        host, port = host_and_port(new)
        with closing(Link((host, port), port=host_and_port(old)[1])):
            west.start()
            until(lambda: new in west.home.coordinator_json.read_text(), "west follows")
            assert run.end(LONG) == "done", run.message
        assert "the coordinator has moved" in west.daemon_log()
        assert (east.charges, west.charges) == charges
        again = run.result().weights
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert "connected" in coordinator.type("sites")
