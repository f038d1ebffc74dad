from __future__ import annotations

import io
import json
import math
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from rich.console import Console

from common.messages.refusals import RefusalReason
from common.metrics.intervals import Estimate
from common.platform.errors import ConfigurationError, Unreachable
from server.cli.run_words import clock, duration, size, time_left
from server.cli.watch import show, watch
from server.files.folder import RunFolder
from server.files.status_reader import RunView, newest, view_of
from server.files.status_writer import Board, SiteState
from server.rounds.journal import Journal
from server.rounds.round_record import RoundRecord
from server.service.advice import advice

NOW = datetime(2026, 11, 26, 14, 5, tzinfo=timezone(timedelta(hours=1)))


class Run:
    """A run's folder, written as the service and the run's process write it."""

    def __init__(self, path: Path, name: str = "breast-us-1") -> None:
        self.place = RunFolder(path / name)
        self.place.path.mkdir(parents=True)
        self.board = Board(path=self.place.status, run=name, rounds=3, quorum=2)
        self.state("running")

    def state(self, state: str, message: str = "", **more: object) -> None:
        facts = {"run": self.place.path.name, "state": state, "message": message, **more}
        self.place.run.write_text(json.dumps(facts), encoding="utf-8")

    def site(self, name: str, state: SiteState, why: str = "") -> None:
        self.board.site(name, state, why)
        self.board.write()

    def round(self, number: int, **more: object) -> None:
        Journal(self.place.journal).write(
            "round",
            RoundRecord(round=number, updates=("north",), score=0.5, **more).to_json(),  # type: ignore[arg-type]
        )

    def look(self) -> RunView:
        return view_of(self.place)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def shown(view: RunView, width: int = 80) -> str:
    out = io.StringIO()
    show([view], Console(file=out, width=width))
    return out.getvalue()


def seen(looks: Iterator[RunView], *, terminal: bool) -> tuple[int, str]:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal)
    code = watch(lambda: next(looks), console, pause_seconds=0.0)
    return code, out.getvalue()


# --- what is shown -------------------------------------------------------------------------


def test_one_look_says_run_round_wait_time_and_what_to_do(run: Run) -> None:
    run.board.begin("training", 2, time.time() + 3600)
    run.site("north", "answered")
    run.board.count("north", sent=3_200_000, received=1_100_000)
    run.board.sites["north"].epsilon = 0.42
    run.site("south", "offline", "not connected")
    text = shown(run.look())
    assert "breast-us-1  running  round 2 of 3  training since" in text
    assert "Waiting for updates of 1 of 2 sites: south (not connected), since" in text
    assert "south is not connected: its admin types wardround-site start" in text
    assert "if there are 2 or more" in " ".join(text.split())
    (north,) = [line for line in text.splitlines() if line.startswith("north")]
    assert north.split() == [
        "north",
        "answered",
        north.split()[2],
        "0.42",
        "3.2",
        "MB",
        "1.1",
        "MB",
    ]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_row_of_long_names_fits_the_screen(run: Run, width: int) -> None:
    run.board.begin("approval", 0)
    run.site("university-hospital-of-a-very-long-name", "refused", RefusalReason.COLUMNS.value)
    text = shown(run.look(), width)
    assert "refused" in text
    assert "received" in text
    assert max(map(len, text.splitlines())) <= width


def test_rounds_tell_their_first_metric_and_json_all_of_them(run: Run) -> None:
    run.board.begin("training", 3)
    auroc = Estimate(value=0.81, low=0.7, high=0.9, patients=40)
    hidden = Estimate(value=math.nan, low=math.nan, high=math.nan, patients=40, reason="too few")
    run.round(1, metrics={"auroc": auroc, "brier": auroc})
    run.round(2, metrics={"auroc": hidden})
    run.round(3)
    view = run.look()
    lines = shown(view).splitlines()
    (head,) = (line for line in lines if line.startswith("round "))
    assert head.split() == ["round", "done", "sites", "score", "AUROC", "sent", "received"]
    rows = [line.split()[2:5] for line in lines[lines.index(head) + 2 :][:3]]
    assert rows == [["1", "0.5000", "0.810"], ["1", "0.5000", "0"], ["1", "0.5000", "0"]]
    told = view.model_dump(mode="json")["rounds"]
    assert told[0]["metrics"]["brier"]["value"] == 0.81


def test_a_watched_round_tells_its_metric(run: Run) -> None:
    run.board.begin("training", 1)
    first = run.look()
    run.round(1, metrics={"auroc": Estimate(value=0.81, low=0.7, high=0.9, patients=40)})
    run.state("done")
    _, lines = seen(iter([first, run.look()]), terminal=False)
    assert "round 1 is done: 1 updates, score 0.5000, AUROC 0.810" in lines


def test_a_run_that_is_over_says_how_it_ended_and_what_comes_next(run: Run) -> None:
    run.board.begin("training", 3)
    run.board.end("done", "all 3 rounds are done")
    run.state("done")
    assert "All 3 rounds are done." in shown(run.look())
    assert "wardround-coordinator export breast-us-1" in shown(run.look())
    run.state("failed", "No space left on the disk.")
    assert "No space left on the disk." in shown(run.look())
    assert "wardround-coordinator resume breast-us-1" in " ".join(shown(run.look()).split())


def test_a_measured_run_tells_its_test_metrics_and_an_exported_one_asks_for_nothing(
    run: Run,
) -> None:
    run.board.metrics = {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    run.board.begin("training", 3)
    assert "Validation patients of all sites: AUROC 0.800 (0.700 to 0.900)." in shown(run.look())
    run.place.results.write_text('{"metrics": {"auroc": {"value": 0.91, "low": null}}}')
    run.board.end("done", "all 3 rounds are done")
    run.state("done")
    assert "Test patients of all sites: AUROC 0.910." in shown(run.look())
    run.place.bundle.mkdir()
    (run.place.bundle / "card.json").touch()
    assert "What to do" not in shown(run.look())


def test_rounds_are_told_with_their_bytes(run: Run) -> None:
    run.board.begin("training", 1)
    run.board.count("north", sent=5000, received=3000)
    run.round(1, left_out={"south": "it did not answer"})
    run.board.begin("training", 2)
    run.board.count("north", sent=70_000)
    run.board.write()
    (line,) = [x for x in shown(run.look()).splitlines() if x.startswith("1 ")]
    assert line.split()[2:] == ["1", "0.5000", "5", "kB", "3", "kB", "south"]


def test_many_runs_are_a_table_with_those_at_work_first(tmp_path: Path) -> None:
    old, new = Run(tmp_path, "a-1"), Run(tmp_path, "b-1")
    old.state("done", "all 3 rounds are done", created="2026-11-25T10:00:00+00:00")
    new.board.begin("training", 1)
    out = io.StringIO()
    show([old.look(), new.look()], Console(file=out, width=100))
    lines = [line for line in out.getvalue().splitlines() if "-1" in line]
    assert [line.split()[0] for line in lines] == ["b-1", "a-1"]
    assert newest([old.look(), new.look()]) == new.look()


def test_no_run_at_all_says_how_to_start_one() -> None:
    out = io.StringIO()
    show([], Console(file=out, width=100))
    assert "wardround-coordinator run CONFIG" in out.getvalue()
    assert newest([]) is None


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_every_refusal_comes_with_something_to_do(run: Run, reason: RefusalReason) -> None:
    run.board.begin("approval", 0)
    run.site("north", "refused", reason.value)
    (line,) = advice(run.look())
    assert line.startswith("north")


def test_nothing_is_advised_while_all_goes_well(run: Run) -> None:
    run.board.begin("training", 1)
    run.site("north", "asked")
    assert advice(run.look()) == ()


# --- the files -----------------------------------------------------------------------------


def test_files_that_are_missing_torn_or_odd_leave_what_is_known(run: Run) -> None:
    assert "Its process is starting." in shown(run.look())
    run.place.status.write_text('{"round": 3', encoding="utf-8")
    run.place.journal.write_text('{"event": "round"', encoding="utf-8")
    assert run.look().status is None
    run.place.status.write_text('{"round": [], "sites": {}}', encoding="utf-8")
    assert run.look().facts.state == "running"
    run.place.run.unlink()
    assert run.look().name == "breast-us-1"


def test_only_the_end_of_a_long_journal_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.files.status_reader._TAIL_BYTES", 1000)
    for number in range(1, 9):
        run.round(number)
    assert [r.round for r in run.look().rounds][-2:] == [7, 8]
    assert len(run.look().rounds) < 6


@pytest.mark.parametrize(
    ("state", "code", "more"),
    [
        ("done", 0, {}),
        ("failed", 1, {}),
        ("failed", 5, {"exit_code": 5}),
        ("stopped", 130, {}),
        ("interrupted", 130, {"exit_code": -9}),
    ],
)
def test_watching_ends_with_the_exit_code_of_the_run(
    run: Run, state: str, code: int, more: dict[str, object]
) -> None:
    before = run.look()
    run.state(state, **more)
    assert seen(iter([before, run.look()]), terminal=True)[0] == code
    assert seen(iter([before, run.look()]), terminal=False)[0] == code


# --- watching ------------------------------------------------------------------------------


def test_without_a_terminal_a_line_is_printed_for_a_phase_and_for_a_round(run: Run) -> None:
    views = []
    run.board.begin("training", 1)
    for state in ("asked", "sending", "answered"):
        run.site("north", state)  # type: ignore[arg-type]
        views.append(run.look())
    run.round(1)
    run.board.begin("training", 2)
    views.append(run.look())
    run.board.end("done", "all 3 rounds are done")
    run.state("done")
    views.append(run.look())
    _, text = seen(iter(views), terminal=False)
    assert "\x1b" not in text
    assert [line[9:].partition(", since")[0] for line in text.splitlines()] == [
        "breast-us-1, running: waiting for updates of 1 of 1 sites: north (asked)",
        "round 1 is done: 1 updates, score 0.5000",
        "breast-us-1, running: round 2 of 3: all updates are here",
        "breast-us-1, done: all 3 rounds are done",
        "write the model as a bundle: wardround-coordinator export breast-us-1",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_service_that_is_gone_for_a_while_is_waited_for(run: Run, *, terminal: bool) -> None:
    begun = run.look()
    run.state("done")
    over = run.look()
    answers: list[RunView | Exception] = [begun, Unreachable("no answer"), begun, over]

    def look() -> RunView:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal)
    assert watch(look, console, pause_seconds=0.0) == 0
    assert "looking again: no answer" in out.getvalue()


@pytest.mark.parametrize("error", [Unreachable("start it"), ConfigurationError("no such run")])
def test_a_service_that_does_not_answer_at_first_is_an_error(error: Exception) -> None:
    def look() -> RunView:
        raise error

    with pytest.raises(type(error)):
        watch(look, Console(file=io.StringIO()))


@pytest.mark.processes
def test_ctrl_c_on_a_real_terminal_ends_the_watching_and_says_that_the_run_goes_on(
    run: Run,
) -> None:
    run.board.begin("training", 1)
    program = (
        "import sys; from pathlib import Path; from rich.console import Console; "
        "from server.files.folder import RunFolder; "
        "from server.files.status_reader import view_of; "
        "from server.cli.watch import watch; "
        f"sys.exit(watch(lambda: view_of(RunFolder(Path({str(run.place.path)!r}))), Console()))"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    try:
        text = _read_until(ours, "Ctrl-C ends the watching")
        process.send_signal(signal.SIGINT)
        text = _read_until(ours, "stop breast-us-1.")
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "You stopped watching; breast-us-1 goes on." in " ".join(text.split())


def _read_until(terminal: int, wanted: str) -> str:
    text, ends = "", time.monotonic() + 30
    while wanted not in " ".join(text.split()):
        assert time.monotonic() < ends, text
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode()
    return text


# --- words ---------------------------------------------------------------------------------


def test_times_are_local_and_name_the_day_where_it_is_another() -> None:
    assert clock("2026-11-26T12:59:00+00:00", NOW) == "13:59"
    assert clock("2026-11-25T23:30:00+00:00", NOW) == "00:30"
    assert clock("2026-11-25T12:59:00+00:00", NOW) == "Wed 13:59"
    assert clock("2026-10-01T12:59:00+00:00", NOW) == "2026-10-01 13:59"
    assert clock("soon", NOW) == "?"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (45, "45 s"), (720, "12 min"), (12_000, "3 h 20 min"), (183_600, "2 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (812, "812 B"), (3_240_000, "3.24 MB"), (999_700, "1 MB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_time_to_go_is_that_of_the_rounds_before(run: Run) -> None:
    run.board.begin("training", 3)
    view = run.look()
    assert time_left(view) == ""
    start = datetime(2026, 11, 26, tzinfo=UTC)
    rounds = [{"round": n, "at": (start + timedelta(minutes=5 * n)).isoformat()} for n in (1, 2)]
    with_rounds = RunView.model_validate({**view.model_dump(), "rounds": rounds})
    assert time_left(with_rounds) == "5 min a round, about 5 min to go"


@pytest.mark.processes
def test_looking_at_a_run_loads_no_torch() -> None:
    program = "import sys, server.cli.watch; print('torch' in sys.modules, 'flwr' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False False\n"
