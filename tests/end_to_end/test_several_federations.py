"""A hospital belongs to two federations: one daemon, one budget, and each told of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import Coordinator, Federation, SiteAt, federation
from tests.end_to_end.processes import until

pytestmark = pytest.mark.slow

LONG = 180.0
ALONE = "{smallest_quorum: 1}"


def join_second(site: SiteAt, other: Coordinator, name: str) -> None:
    line = other.invite([name])[name]
    said = site.type("join", line, status=2)
    assert "another coordinator" in said
    assert "--federation NAME" in said
    said = site.type("join", line, "--federation", "lung")
    other.type("sites", "accept", said.partition(" sites accept ")[2].split()[0])


def order(coordinator: Coordinator, folder: Path, name: str) -> str:
    more = {"privacy": PRIVATE, "aggregation": ALONE}
    config = table_config(folder, name, rounds=2, more=more, size=Size(steps=2))
    run = coordinator.run(config)
    run.end(LONG)
    return run.state + run.message


def test_two_coordinators_are_served_by_one_daemon_from_one_budget(tmp_path: Path) -> None:
    with federation(tmp_path, write_tables(tmp_path / "data", ("east",))) as first:
        east, second = first.sites["east"], Coordinator.made(tmp_path / "second")
        try:
            second.start()
            before = {p: p.read_bytes() for p in (east.home.coordinator_json, east.home.key)}
            join_second(east, second, "st-easts")  # which is called otherwise there
            assert {path: path.read_bytes() for path in before} == before
            east.program.stop()
            first.start()
            lung = east.home.of("lung")
            until(lambda: "connected" in second.type("sites"), "both are served")
            key = lung.public_key.read_text()
            east.type("rotate-key", "--federation", "lung")  # while the daemon runs
            until(lambda: "the site's key was changed" in east.daemon_log(), "it is taken up")
            assert lung.public_key.read_text() != key
            shown = east.type("status")
            assert "Federation first:" in shown
            assert "Federation lung:" in shown
            done = (order(first.coordinator, tmp_path, "breast"), order(second, tmp_path, "lung"))
            assert all(one.startswith("done") for one in done), done
            charges = east.charges
            assert charges >= 4  # of both, in one ledger
            assert "breast" in east.type("budget")
            assert "lung" in east.type("budget")
            mine = east.type("disclosures", "--federation", "lung")
            assert "lung" in mine
            assert "breast" not in mine
            assert lung.approvals.exists()
            check_budget_is_one(first, second, tmp_path)
            check_leaving_one_leaves_the_other(first, second)
        finally:
            second.program.stop()


def check_budget_is_one(first: Federation, second: Coordinator, folder: Path) -> None:
    """See that what the first one's runs have spent cannot be spent again by the second one's."""
    east = first.sites["east"]
    east.allow(largest_epsilon_per_cohort=3.0)
    charges = east.charges
    assert "failed" in order(second, folder, "third")
    assert east.charges == charges
    assert "--federation" in east.type("runs", status=2)
    assert "third" in east.type("runs", "--federation", "lung")


def check_leaving_one_leaves_the_other(first: Federation, second: Coordinator) -> None:
    east = first.sites["east"]
    assert "the key is destroyed" in east.type("leave", "--federation", "lung", "--yes")
    assert "st-easts" not in second.type("sites")
    everybody = second.type("sites", "--all")
    assert "left" in everybody
    assert "replaced" in everybody
    until(lambda: "has left its coordinator" in east.daemon_log(), "the daemon notices")
    assert east.program.runs
    assert "connected" in first.coordinator.type("sites")
    assert east.home.key.exists()
    assert not east.home.of("lung").key.exists()
    assert "Federation" not in east.type("status")
