"""A site changes its key while its daemon runs, and another leaves; the federation goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.cohorts import Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, federation
from tests.end_to_end.processes import until

pytestmark = pytest.mark.slow

LONG = 120.0


def order(two: Federation, folder: Path, name: str) -> RunAt:
    return two.coordinator.run(table_config(folder, name, rounds=2, size=Size()))


def test_a_key_is_changed_and_a_site_leaves_while_the_daemons_run(tmp_path: Path) -> None:
    with federation(tmp_path, write_tables(tmp_path / "data", ("east", "west"))) as two:
        east, west = two.sites["east"], two.sites["west"]
        before = west.home.public_key.read_text()
        said = west.type("rotate-key")
        until(lambda: "the site's key was changed" in west.daemon_log(), "the key is taken up")
        two.start()
        assert west.home.public_key.read_text() != before
        assert order(two, tmp_path, "first").end(LONG) == "done"
        assert len(west.sent()) == len(east.sent()) == 2
        shown = two.coordinator.type("sites")
        assert said.partition("SHA256:")[2].split()[0] in shown
        assert "replaced" not in shown.partition("Not shown")[0]
        # It leaves, and its daemon ends by itself.
        assert "was told, and the key is destroyed" in west.type("leave", "--yes")
        until(lambda: not west.program.runs, "the daemon of a site that left ends")
        assert "has left its coordinator" in west.daemon_log()
        assert "west" not in two.coordinator.type("sites")
        everybody = two.coordinator.type("sites", "--all")
        assert "left" in everybody
        assert "replaced" in everybody
