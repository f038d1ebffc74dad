"""When an answer is late, and how long a silent site is waited for."""

from __future__ import annotations

import pytest

from common.platform.awake_clock import AwakeClock
from server.rounds import late_answers
from server.rounds.late_answers import Deadline, late, patience_of
from server.rounds.non_admission_reasons import Fault


def test_an_answer_is_late_from_the_deadline_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(late_answers, "awake", AwakeClock(5.0, lambda: now[0]))
    monkeypatch.setattr(late_answers.time, "time", lambda: now[0])
    deadline = Deadline.after(15)
    assert (deadline.ends, deadline.left, deadline.is_over) == (1015.0, 15.0, False)
    for _ in range(2):
        now[0] += 4.0
        assert not deadline.is_over
    now[0] += 3600.0  # the machine was suspended: nobody was waited for
    assert (deadline.ends, deadline.left, deadline.is_over) == (4610.0, 2.0, False)
    now[0] += 2.0
    assert deadline.is_over


def test_silence_is_borne_for_a_sixth_of_a_round_but_twenty_seconds_at_least() -> None:
    assert patience_of(3600) == 600
    assert patience_of(30) == 20


def test_a_late_site_is_told_as_not_admitted_and_has_used_its_turn() -> None:
    told = late("west", "offline for too long")
    assert (told.site, told.fault, told.used_up) == ("west", Fault.LATE, True)
    assert told.detail == "offline for too long"
