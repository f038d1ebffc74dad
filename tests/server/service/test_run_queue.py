"""Which of the runs that wait begins next, when, and how many work at once."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

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


def test_a_run_that_waits_for_its_sites_gives_its_place_to_the_next() -> None:
    queue = RunQueue(1)
    first, second = entry("a", 0), entry("b", 1)
    queue.enter(first)
    queue.enter(second)
    assert began(queue, "a", "b") == ["a"]
    queue.leave("a")  # it waits for sites
    assert began(queue, "b") == ["b"]
    sites, why = queue.work_with(first, {"north": None}, 1)  # they are there again
    assert not sites
    assert "at work b; 0 before it" in why
    queue.enter(entry("c", 2))
    queue.leave("b")
    assert began(queue, "c") == []  # a was ordered before
    assert queue.work_with(first, {"north": None}, 1) == ({"north"}, "")


def test_a_site_serves_no_more_runs_at_once_than_it_says() -> None:
    queue = RunQueue(None)
    first, second, third = (entry(run, number) for number, run in enumerate("abc"))
    assert queue.work_with(first, {"north": 2, "south": 1}, 2) == ({"north", "south"}, "")
    sites, why = queue.work_with(second, {"north": 2, "south": 1}, 2)
    assert not sites
    assert "of which it needs 2: south serves 1 at once (runs_at_once in its site.yaml)" in why
    assert "at work there: a" in why
    assert queue.work_with(third, {"north": None, "west": 1}, 2)[0] == {"north", "west"}
    queue.leave("a")
    assert queue.work_with(second, {"north": 2, "south": 1}, 2)[0] == {"north", "south"}


def test_a_run_begins_without_a_busy_site_and_takes_it_in_once_it_has_room() -> None:
    queue = RunQueue(None)
    first, second = entry("a", 0), entry("b", 1)
    assert queue.work_with(first, {"north": 1}, 1)[0] == {"north"}
    ready = {"north": 1, "south": 1, "west": None}
    assert queue.work_with(second, ready, 2)[0] == {"south", "west"}
    assert queue.work_with(second, ready, 2)[0] == {"south", "west"}
    queue.leave("a")
    assert queue.work_with(second, ready, 2)[0] == {"north", "south", "west"}


def test_a_run_that_waits_for_a_busy_site_holds_neither_a_place_nor_another_site() -> None:
    queue = RunQueue(2)
    first, second, third = (entry(run, number) for number, run in enumerate("abc"))
    for one in (first, second, third):
        queue.enter(one)
    assert began(queue, "a", "b") == ["a", "b"]
    assert queue.work_with(first, {"north": 1}, 1)[0] == {"north"}
    assert not queue.work_with(second, {"north": 1, "south": 1}, 2)[0]
    assert began(queue, "c") == ["c"]
    # South is kept for the first of those that wait for it, and nobody waits for it in vain.
    assert not queue.work_with(third, {"south": 1}, 1)[0]
    queue.leave("a")
    assert queue.work_with(second, {"north": 1, "south": 1}, 2)[0] == {"north", "south"}
    assert not queue.work_with(third, {"south": 1}, 1)[0]
    queue.leave("b")
    assert queue.work_with(third, {"south": 1}, 1)[0] == {"south"}


@given(st.integers(0, 10**9))
def test_runs_in_any_order_keep_to_every_bound_and_all_come_to_their_end(seed: int) -> None:
    chance = random.Random(seed)
    limits = {site: chance.choice([None, 1, 1, 2]) for site in "NSW"}
    queue = RunQueue(chance.choice([None, 1, 2]))
    runs = {}
    for number in range(5):
        wanted = chance.sample("NSW", chance.randint(1, 3))
        least = chance.randint(1, len(wanted))
        one = entry(f"r{number}", number, chance.randint(0, 1))
        runs[one.run] = one, {site: limits[site] for site in wanted}, least
        queue.enter(one)
    held: dict[str, frozenset[str]] = {}
    started: set[str] = set()
    rounds = 0
    while runs:
        rounds += 1
        assert rounds < 500, f"nobody goes on: {sorted(runs)}"
        run = chance.choice(sorted(runs))
        one, ready, least = runs[run]
        if run not in started:  # its process asks for a place first
            if queue.why_waiting(run):
                continue
            started.add(run)
        now = dict(ready) if chance.random() < 0.9 else {}  # its sites are away
        if not now:
            queue.leave(run)
            held.pop(run, None)
            continue
        sites, why = queue.work_with(one, now, least)
        assert bool(sites) != bool(why)
        held.pop(run, None)
        if sites:
            assert least <= len(sites)
            held[run] = sites
            if chance.random() < 0.5:
                queue.leave(run)
                del held[run], runs[run]
        assert queue.at_once is None or len(held) <= queue.at_once
        for site, limit in limits.items():
            assert limit is None or sum(site in sites for sites in held.values()) <= limit
