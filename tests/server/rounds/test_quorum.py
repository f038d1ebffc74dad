"""When a first round starts without the sites that have said neither yes nor no."""

from __future__ import annotations

import pytest

from common.platform.awake_clock import AwakeClock
from server.rounds import quorum
from server.rounds.quorum import Start
from tests.client.local_runs import config_of

TWO = config_of("aggregation: {smallest_quorum: 2}\nexchange: {round_minutes: 60, wait_hours: 72}")
THERE = ("east", "west")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which tests change."""
    found = [0.0]
    monkeypatch.setattr(quorum, "awake", AwakeClock(1e9, lambda: found[0]))
    return found


def test_an_absent_site_is_waited_for_two_minutes_from_the_quorum_on(now: list[float]) -> None:
    start = Start(TWO, waits=False)
    assert start.without(("east",), working=False) == start.gives_up == 72 * 3600
    now[0] = 5000.0
    assert start.without(THERE, working=False) == 5120
    now[0] = 5060.0
    assert start.without(THERE, working=False) == 5120
    assert start.without(("east",), working=False) == start.gives_up  # one is gone again
    now[0] = 5100.0
    assert start.without(THERE, working=False) == 5220


def test_a_site_that_reads_its_images_has_as_long_as_a_round(now: list[float]) -> None:
    start = Start(TWO, waits=False)
    now[0] = 10.0
    assert start.without(THERE, working=True) == 3600


def test_with_wait_every_site_is_waited_for(now: list[float]) -> None:
    start = Start(TWO, waits=True)
    now[0] = 10.0
    assert start.without(THERE, working=False) == start.gives_up


def test_nobody_is_waited_for_longer_than_a_round_may_take(now: list[float]) -> None:
    short = config_of("aggregation: {smallest_quorum: 2}\nexchange: {round_minutes: 0.5}")
    start = Start(short, waits=False)
    now[0] = 10.0
    assert start.without(THERE, working=False) == 40
