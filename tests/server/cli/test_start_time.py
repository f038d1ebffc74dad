from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from common.platform.errors import ConfigurationError
from server.cli.run import start_time


def test_a_time_of_day_is_the_next_one() -> None:
    now = datetime.now().astimezone()
    for shift in (timedelta(minutes=-5), timedelta(minutes=5)):
        wanted = now + shift
        found = start_time(f"{wanted:%H:%M}")
        assert found is not None
        assert f"{found:%H:%M}" == f"{wanted:%H:%M}"
        assert timedelta() < found - now <= timedelta(days=1, hours=1)


def test_a_day_and_a_time_are_of_this_machine() -> None:
    day = datetime.now().astimezone().date() + timedelta(days=100)
    found = start_time(f"{day} 22:00")
    assert found == datetime(day.year, day.month, day.day, 22).astimezone()
    assert start_time(None) is None


@pytest.mark.parametrize(
    "text", ["", "22", "25:00", "tonight", "2020-01-01 12:00", "9999-12-31 23:59"]
)
def test_what_is_no_time_to_come_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"--at='{text}'")):
        start_time(text)
