from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from client.governance.repetition_limits import SELDOM_SECONDS, Allowance, Repetitions, Seldom


@dataclass
class Written:
    """What was written, and a clock that a test sets."""

    lines: list[tuple[object, int]] = field(default_factory=list)
    now: float = 0.0
    is_full: bool = False

    def write(self, what: object, times: int) -> None:
        if self.is_full:
            message = "full"
            raise OSError(message)
        self.lines.append((what, times))

    def clock(self) -> float:
        return self.now


def test_what_comes_each_two_seconds_is_written_each_five_minutes_and_none_is_lost() -> None:
    to = Written()
    repeated: Repetitions[str] = Repetitions(to.clock)
    for second in range(0, 3600, 2):
        to.now = float(second)
        repeated.add("a", "a", to.write)
    assert len(to.lines) == 3600 / SELDOM_SECONDS
    repeated.rest(to.write)
    assert sum(times for _, times in to.lines) == 1800
    assert to.lines[0] == ("a", 1)
    repeated.rest(to.write)
    assert sum(times for _, times in to.lines) == 1800


def test_what_stopped_coming_is_written_when_anything_else_comes() -> None:
    to = Written()
    repeated: Repetitions[str] = Repetitions(to.clock)
    for _ in range(3):
        repeated.add("a", "a", to.write)
    to.now = SELDOM_SECONDS
    repeated.add("b", "b", to.write)
    assert sorted(to.lines) == [("a", 1), ("a", 2), ("b", 1)]


def test_what_could_not_be_written_comes_again_and_is_written_then() -> None:
    to = Written(is_full=True)
    repeated: Repetitions[str] = Repetitions(to.clock)
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            repeated.add("a", "a", to.write)
    to.is_full = False
    repeated.add("a", "a", to.write)
    assert to.lines == [("a", 1)]


def test_ever_other_things_are_forgotten_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.governance.repetition_limits._MOST", 10)
    to = Written()
    repeated: Repetitions[int] = Repetitions(to.clock)
    for number in range(100):
        for _ in range(2):
            repeated.add(str(number), number, to.write)
    assert sum(str(number) in repeated for number in range(100)) == 10
    repeated.rest(to.write)
    assert sum(times for _, times in to.lines) == 200


def test_an_allowance_is_so_many_at_once_and_then_one_at_a_time() -> None:
    to = Written()
    allowance = Allowance(3, 60.0, to.clock)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    to.now = 59.0
    assert not allowance.take()
    to.now = 60.0
    assert [allowance.take(), allowance.take()] == [True, False]
    to.now = 1e9
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    to.now = 0.0  # a clock that goes back gives nothing
    assert not allowance.take()


def test_a_flood_of_events_leaves_few_lines_and_all_are_counted() -> None:
    to = Written()
    seldom = Seldom(to.write, to.clock)
    for number in range(50_000):
        to.now = number / 10
        facts: Mapping[str, object] = {"run": f"run-{number}"}
        seldom("refused", facts)
    seldom.rest()
    assert len(to.lines) < 220
    assert sum(times for _, times in to.lines) == 50_000
    assert to.lines[0] == ({"event": "refused", "run": "run-0"}, 1)
