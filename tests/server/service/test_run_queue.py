"""Which of the runs that wait begins next, when, and how many work at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from server.service.run_book import RunEntry
from server.service.run_queue import RunQueue

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def entry(run: str, ordered: int, priority: int = 0, at: datetime | None = None) -> RunEntry:
    created = (NOON - timedelta(hours=1) + timedelta(seconds=ordered)).isoformat()
    return RunEntry(run=run, created=created, priority=priority, starts_at=at)


def began(queue: RunQueue, *runs: str) -> list[str]:
    """Return which runs have their turn when they ask for it in this order, again and again."""
    found: list[str] = []
    for _ in runs:
        found += [run for run in runs if run not in found and not queue.why_waiting(run)]
    return found


def test_without_a_bound_every_run_begins_at_once() -> None:
    queue = RunQueue(None)
    for number, run in enumerate(("a", "b", "c")):
        queue.enter(entry(run, number))
    assert began(queue, "c", "b", "a") == ["c", "b", "a"]


def test_the_highest_priority_goes_first_and_among_equals_the_first_ordered() -> None:
    queue = RunQueue(1)
    for number, (run, priority) in enumerate({"a": 0, "b": 0, "c": 5, "d": -1}.items()):
        queue.enter(entry(run, number, priority))
    order = []
    left = ["d", "b", "a", "c"]
    while left:
        (run,) = began(queue, *left)
        order.append(run)
        left.remove(run)
        assert began(queue, *left) == []  # it works, and the others wait
        queue.leave(run)
    assert order == ["c", "a", "b", "d"]


def test_a_run_that_waits_says_for_what() -> None:
    queue = RunQueue(1)
    queue.enter(entry("a", 0))
    queue.enter(entry("b", 1))
    queue.enter(entry("c", 2))
    assert queue.why_waiting("a") == ""
    said = queue.why_waiting("c")
    assert "at work a; 1 before it" in said
    assert "at most 1 at once (runs_at_once" in said


def test_a_run_that_starts_later_takes_nobodys_place_until_then() -> None:
    now = [NOON]
    queue = RunQueue(1, lambda: now[0])
    queue.enter(entry("night", 0, 9, NOON + timedelta(hours=10)))
    queue.enter(entry("day", 1))
    assert queue.why_waiting("night").startswith("It starts at 2026-12-0")
    assert queue.why_waiting("day") == ""
    now[0] += timedelta(hours=10)
    assert "at work day" in queue.why_waiting("night")
    queue.leave("day")
    assert queue.why_waiting("night") == ""


def test_the_bound_may_change_while_runs_wait() -> None:
    queue = RunQueue(1)
    queue.enter(entry("a", 0))
    queue.enter(entry("b", 1))
    assert began(queue, "a", "b") == ["a"]
    queue.at_once = 2
    assert began(queue, "b") == ["b"]
