"""A patient is withdrawn at one hospital while a run trains there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.site.withdrawals import writing
from tests.end_to_end.aftermath import bits, sound
from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, federation
from tests.end_to_end.processes import until

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
LONG = 120.0


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path, write_tables(tmp_path / "data", NAMES)) as found:
        yield found


def order(two: Federation, folder: Path, name: str, size: Size, **more: str) -> RunAt:
    return two.coordinator.run(table_config(folder, name, rounds=2, more=more, size=size))


def test_a_run_under_way_goes_on_without_a_withdrawn_patient_and_later_ones_never_knew_them(
    two: Federation, tmp_path: Path
) -> None:
    east = two.sites["east"]
    # A network that takes a second to train.
    slow = Size(hidden=(300, 300), steps=40)
    run = order(two, tmp_path, "under-way", slow, privacy=PRIVATE)
    until(lambda: east.status.get("phase") == "train", "east trains")
    worker = east.worker
    gone = [f"east-{number}" for number in range(6)]
    with writing(east.home.withdrawals) as log:
        for patient in gone[1:]:
            log.withdraw(patient)
    east.type("withdraw", gone[0], "--yes")
    assert run.end(LONG) == "done"
    sound(two, run, 2)
    assert east.worker != worker  # what was in its memory is gone
    after = order(two, tmp_path, "after", Size())
    assert after.end(LONG) == "done"
    # The same as if the table had never named them.
    table = east.data / "labels.csv"
    kept = [line for line in table.read_text().splitlines() if line.split(",")[0] not in gone]
    assert len(kept) == 1 + 60 - 6
    table.write_text("\n".join(kept) + "\n")
    never = order(two, tmp_path, "never", Size())
    assert never.end(LONG) == "done"
    assert bits(sound(two, after, 2)) == bits(sound(two, never, 2))
