from __future__ import annotations

import json
from pathlib import Path

from prometheus_client import CollectorRegistry

from common.messages.wire import RefusalReason
from server.files.folder import Folder
from server.files.status_writer import Board, SiteLine
from server.rounds.journal import Journal
from server.rounds.non_admission_reasons import Fault
from server.rounds.round_record import RoundRecord
from server.service.prometheus_metrics import CoordinatorMeters
from server.service.run_metrics import Follower


class Coordinator:
    """A folder with runs as their processes leave it, and the meters that follow it."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self.registry = CollectorRegistry()
        self.meters = CoordinatorMeters(self.registry)

    def board(self, name: str, state: str = "running") -> Board:
        place = self.folder.run(name)
        place.path.mkdir(parents=True, exist_ok=True)
        place.run.write_text(json.dumps({"run": name, "state": state}), encoding="utf-8")
        return Board(path=place.status, run=name, rounds=3, quorum=1)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"wardround_{name}", labels)


def test_reasons_become_words_of_ours_and_no_text_of_a_site_becomes_a_label(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    here.meters.round_done(
        ["north"],
        {
            "south": RefusalReason.BUDGET.value,
            "east": Fault.TOO_LARGE.value,
            "west": "it did not answer",
            "odd": "MUSTER^MAX at /data/1.2.840.1.1",
        },
    )
    assert here.value("rounds_total") == 1
    assert here.value("updates_total", site="north") == 1
    assert here.value("left_out_total", site="south", reason="budget") == 1
    assert here.value("left_out_total", site="east", reason="too_large") == 1
    assert here.value("left_out_total", site="west", reason="no_answer") == 1
    assert here.value("left_out_total", site="odd", reason="other") == 1


def test_a_site_that_was_revoked_is_not_counted_as_down(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    here.meters.sites(["north", "south"], ["north"])
    assert (here.value("site_up", site="north"), here.value("site_up", site="south")) == (1, 0)
    here.meters.sites(["north"], ["north"])
    assert here.value("site_up", site="south") is None


def test_what_runs_write_is_counted_once(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    old = here.board("before", "done")
    old.sites["north"] = SiteLine(bytes_sent=500)
    old.write()
    Journal(here.folder.run("before").journal).write(
        "round", RoundRecord(round=1, updates=("north",)).to_json()
    )
    follower = Follower(here.folder, here.meters)
    board, journal = here.board("now"), Journal(here.folder.run("now").journal)
    board.begin("training", 1)
    board.count("north", sent=100, received=40)
    board.site("north", "answered")
    board.sites["north"].epsilon = 0.5
    board.write()
    journal.write("round", RoundRecord(round=1, updates=("north",)).to_json())
    for _ in range(3):
        follower.look()
    assert here.value("rounds_total") == 1
    assert here.value("bytes_total", site="north", direction="sent") == 100
    assert here.value("bytes_total", site="north", direction="received") == 40
    assert here.value("epsilon", site="north") == 0.5
    assert (here.value("runs", state="running"), here.value("runs", state="done")) == (1, 1)


def test_a_run_that_goes_on_after_a_crash_adds_its_bytes_to_those_before(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    follower = Follower(here.folder, here.meters)
    for sent in (100, 30):  # the second process begins at nothing
        board = here.board("now")
        board.begin("training", 1)
        board.count("north", sent=sent)
        board.write()
        follower.look()
    assert here.value("bytes_total", site="north", direction="sent") == 130


def test_a_phase_is_timed_when_it_ends(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    follower = Follower(here.folder, here.meters)
    board = here.board("now")
    for phase, since in (("training", "10:00:00"), ("evaluating", "10:00:42"), ("over", "10:01")):
        board.phase = phase  # type: ignore[assignment]  # each is one of the phases
        board.since = f"2026-11-20T{since}+00:00"
        board.write()
        follower.look()
    assert here.value("phase_seconds_sum", phase="training") == 42
    assert here.value("phase_seconds_sum", phase="evaluating") == 18
    assert here.value("phase_seconds_count", phase="over") is None


def test_a_file_that_is_torn_or_odd_does_not_stop_the_counting(tmp_path: Path) -> None:
    here = Coordinator(tmp_path)
    here.board("odd")
    here.folder.run("odd").status.write_text('{"sites": 7', encoding="utf-8")
    follower = Follower(here.folder, here.meters)
    here.folder.run("odd").status.write_text('{"sites": 7}', encoding="utf-8")
    follower.look()
    assert here.value("runs", state="running") == 1
