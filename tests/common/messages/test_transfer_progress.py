from __future__ import annotations

import pytest

from common.messages.pull_headers import fetched_header, read_fetched
from common.messages.transfer_progress import Transfer


@pytest.mark.parametrize(
    ("transfer", "words"),
    [
        (Transfer(done=48_000_000, total=94_000_000, seconds=563.5), "48 of 94 MB, 9 min left"),
        (Transfer(done=48_000_000, total=94_000_000, seconds=10.0), "48 of 94 MB, 10 s left"),
        (Transfer(done=47_000_000, total=94_000_000, seconds=9000.0), "47 of 94 MB, 2 h left"),
        # What was there before it was taken up again says nothing of the line.
        (
            Transfer(done=50_000_000, total=90_000_000, at_first=40_000_000, seconds=100.0),
            "50 of 90 MB, 7 min left",
        ),
        (Transfer(done=0, total=94_000_000, seconds=60.0), "0 of 94 MB"),
        (Transfer(done=2_000_000, total=94_000_000, seconds=0.1), "2 of 94 MB"),
        (Transfer(done=95_000_000, total=94_000_000, seconds=60.0), "95 of 95 MB, 1 s left"),
        (Transfer(done=100, total=900, seconds=60.0), ""),
    ],
)
def test_a_transfer_is_told_with_the_time_that_is_left(transfer: Transfer, words: str) -> None:
    assert transfer.words == words


def test_what_sites_have_fetched_is_read_as_it_was_written() -> None:
    sizes = {1: 0, 2**64 - 1: 48_000_000}
    assert read_fetched(fetched_header(sizes)) == sizes
    assert read_fetched("") == read_fetched("x=1,2=,=3,1=-4") == {}
