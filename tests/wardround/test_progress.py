from __future__ import annotations

import pytest

import wardround as wr
from server.rounds.round_record import RoundRecord
from simulations.comparison.arms import ArmOutcome
from wardround import progress
from wardround.progress import NotebookProgress, in_notebook

NOTHING = ArmOutcome(
    test={}, validation={}, rounds=(), epsilon={}, delta={}, weights={}, chosen_round=0, seconds=0.0
)


class Said:
    def __init__(self) -> None:
        self.lines: list[tuple[str, float | None]] = []

    def say(self, text: str, part: float | None = None) -> None:
        self.lines.append((text, part))


def test_a_notebook_is_told_where_it_is_and_at_the_end_what_was_done(run: wr.RunConfig) -> None:
    line = Said()
    told = NotebookProgress(line, run, ("local", "federated"), 2)
    told.progress.arm("local", 0, 0)
    told.progress.round("local north", RoundRecord(round=3, updates=("north",), score=0.5))
    told.progress.done("local", 0, 0, NOTHING)
    told.progress.arm("federated", 0, 0)
    assert line.lines == [
        ("local, seed 0", 0.0),
        ("local, seed 0: round 3 of 3 (local north), validation 0.5000", 0.25),
        ("federated, seed 0", 0.25),
    ]
    assert told.ended() == "Done: local, federated; 2 seeds."


def test_a_notebook_says_what_it_stopped_at(
    run: wr.RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Said()
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "NotebookLine", lambda: line)

    def interrupted() -> None:
        with progress.comparing(run, ("local",), 1, shown=True) as told:
            told.arm("local", 0, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert line.lines[-1] == ("Stopped: local, seed 0", None)
    with progress.reading(shown=True, ends="All were read.") as tell:
        tell("north: 3 patients")
    assert line.lines[-2:] == [("north: 3 patients", None), ("All were read.", None)]


def test_a_script_is_told_on_standard_error(
    run: wr.RunConfig, sites: wr.Cohorts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not in_notebook()
    wr.compare(run, sites, arms=["federated"])
    told = capsys.readouterr()
    assert told.out == ""
    assert "federated     seed 0" in told.err
    wr.compare(run, sites, arms=["federated"], progress=False)
    assert capsys.readouterr() == ("", "")
