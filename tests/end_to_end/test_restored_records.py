"""A hospital's home is put back from a backup between two runs, and then truly lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, SiteAt, federation

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
LONG = 120.0


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path, write_tables(tmp_path / "data", NAMES)) as found:
        yield found


def order(two: Federation, folder: Path, name: str, minutes: float = 1.0, **more: str) -> RunAt:
    size = Size(minutes=minutes)
    return two.coordinator.run(table_config(folder, name, rounds=2, more=more, size=size))


def put_back(site: SiteAt, copy: Path) -> None:
    shutil.rmtree(site.home.folder)
    shutil.copytree(copy, site.home.folder)


def test_a_home_from_before_a_run_and_a_withdrawal_is_refused_and_its_remedies_work(
    two: Federation, tmp_path: Path
) -> None:
    east = two.sites["east"]
    assert order(two, tmp_path, "first", privacy=PRIVATE).end(LONG) == "done"
    east.program.stop()
    copy = Path(shutil.copytree(east.home.folder, tmp_path / "backup"))
    east.type("withdraw", "east-3", "--yes")
    two.start()
    assert order(two, tmp_path, "second", privacy=PRIVATE).end(LONG) == "done"
    charges = east.charges
    east.program.stop()
    newest = Path(shutil.copytree(east.home.folder, tmp_path / "newest"))
    put_back(east, copy)
    two.start()
    # So long it waits for the newest copy; without privacy, where the patient counts, too.
    run = order(two, tmp_path, "third", minutes=0.3)
    assert run.end(LONG) == "failed"
    assert "east: the site's own records are not the newest" in run.message
    assert not [x for x in east.sent() if x.disclosure.run == run.place.path.name]
    assert "Put the newest copy of ledger.db and withdrawals.jsonl back" in east.daemon_log()
    assert "wardround-site records --declare-lost" in east.type("records", status=4)
    assert "records" in east.type("doctor", status=1)
    assert east.charges < charges
    # Where the newest copy is found, it is enough to put it back.
    old = shutil.copytree(east.home.folder, tmp_path / "old")
    east.program.stop()
    put_back(east, newest)
    assert "the newest that this home knows of" in east.type("records")
    # Where it is lost, the patient is withdrawn again, and what was spent is charged again.
    put_back(east, Path(old))
    two.start()
    assert "Withdraw the others again" in east.type("records", "--declare-lost", "--yes", status=5)
    east.type("withdraw", "east-3", "--yes")
    assert "Charged back" in east.type("records", "--declare-lost", "--yes")
    assert order(two, tmp_path, "fourth", privacy=PRIVATE).end(LONG) == "done"
    assert east.charges > charges
