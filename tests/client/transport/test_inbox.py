"""What is kept of requests: an object that came once is not fetched again."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.node.message_loop import MessageLoop
from client.transport.inbox import Inbox
from common.messages.signed_envelope import Envelope
from tests.client.answering import Letters
from tests.client.letters import FolderFleet

FRAMES = tuple(bytes([number]) * 100_000 for number in range(1, 5))


class Counting(FolderFleet):
    """Counts what is fetched, and can stop in the midst of it."""

    def __init__(self, folder: Path, most: int = 100) -> None:
        super().__init__(folder)
        self.fetched: list[str] = []
        self.most = most

    def fetch(self, run_id: int, name: str) -> bytes | None:
        if len(self.fetched) >= self.most:
            return None
        self.fetched.append(name)
        return super().fetch(run_id, name)


@pytest.fixture
def fleet(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "fleet")


def letters(tmp_path: Path) -> MessageLoop:
    return Letters(tmp_path / "home").open()


def asked(fleet: FolderFleet, number: int, frames: tuple[bytes, ...] = FRAMES) -> str:
    """Have a request given out that can be read and decided by nobody; its objects count."""
    return fleet.ask(Envelope(header="none of ours", frames=frames), number=number)


def test_the_same_request_by_another_name_is_fetched_once(tmp_path: Path, fleet: Counting) -> None:
    """As after the coordinator began anew: the message is another one, its frames are not."""
    asked(fleet, 0)
    site = letters(tmp_path)
    site.turn(fleet, 0.1)
    first = len(fleet.fetched)
    assert first == len(FRAMES) + 2
    asked(fleet, 1)
    site.turn(fleet, 0.1)
    assert len(fleet.fetched) - first == 1  # the message itself
    asked(fleet, 2, (*FRAMES[:3], b"z" * 100_000))
    site.turn(fleet, 0.1)
    # The last frame, the list of frames and the message.
    assert len(fleet.fetched) - first == 1 + 3


def test_what_came_before_a_cut_is_not_fetched_by_the_next_process_or_for_the_next_message(
    tmp_path: Path, fleet: Counting
) -> None:
    name = asked(fleet, 0)
    fleet.most = 3
    site = letters(tmp_path)
    site.turn(fleet, 0.1)
    fleet.most = 100
    again = letters(tmp_path)  # another process
    assert len(Inbox(tmp_path / "home" / "inbox").waiting()) == 1
    (delivery,) = Inbox(tmp_path / "home" / "inbox").waiting()
    assert delivery.id == name
    Inbox(tmp_path / "home" / "inbox").drop(delivery)  # its run was stopped meanwhile
    asked(fleet, 1)
    again.turn(fleet, 0.1)
    assert len(fleet.fetched) == len(set(fleet.fetched))


def test_a_kept_object_that_is_torn_is_fetched_and_no_more_than_two_requests_are_kept(
    tmp_path: Path, fleet: Counting
) -> None:
    asked(fleet, 0)
    site = letters(tmp_path)
    site.turn(fleet, 0.1)
    kept = tmp_path / "home" / "kept"
    torn = max(kept.glob("*/*"), key=lambda path: path.stat().st_size)
    torn.write_bytes(torn.read_bytes()[:-1])
    before = len(fleet.fetched)
    asked(fleet, 1)
    site.turn(fleet, 0.1)
    assert fleet.fetched[before:].count(torn.name) == 1
    for number in range(2, 6):
        asked(fleet, number, tuple(bytes([number]) * 100_000 for _ in range(2)))
        site.turn(fleet, 0.1)
    assert len(list(kept.iterdir())) == 2


def test_of_small_requests_nothing_is_kept(tmp_path: Path, fleet: Counting) -> None:
    asked(fleet, 0, (b"small",))
    letters(tmp_path).turn(fleet, 0.1)
    assert not (tmp_path / "home" / "kept").exists()
