"""Sites that are here: what Flower is told of them, and how it sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import pytest

from common.messages.signing_key import new_private_key, public_text
from server.service.calls import presence as module
from server.service.calls.presence import Presence
from server.service.superlink import SuperLink


def told(acts: Callable[[Presence], Awaitable[None]]) -> list[set[int]]:
    """Return what was told, each time, while `acts` went on."""
    found: list[set[int]] = []

    async def tell() -> None:
        here = Presence(lambda nodes: found.append(set(nodes)))
        telling = asyncio.ensure_future(here.keep_telling())
        await acts(here)
        telling.cancel()

    asyncio.run(tell())
    return found


async def some_time(times: int) -> None:
    """Let several tellings pass."""
    await asyncio.sleep(times * module.TELLING_SECONDS + 0.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELLING_SECONDS", 0.1)


def test_all_sites_are_told_in_one_statement_and_who_waits_again_and_again() -> None:
    async def acts(here: Presence) -> None:
        with here.waiting(1), here.waiting(2), here.waiting(1):
            await some_time(3)
        await some_time(3)

    found = told(acts)
    assert {1, 2} in found
    assert found[0] <= {1, 2}
    assert found[-1] != set()
    assert 2 < len(found) <= 6  # not once more after the waits' end


def test_a_site_that_came_back_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELLING_SECONDS", 100.0)

    async def acts(here: Presence) -> None:
        await asyncio.sleep(0.05)
        here.seen(7)
        await asyncio.sleep(0.1)
        here.seen(7)  # told of already
        await asyncio.sleep(0.1)

    assert told(acts) == [{7}]


def test_a_site_that_said_good_bye_is_not_told_though_its_pull_waits() -> None:
    async def acts(here: Presence) -> None:
        with here.waiting(1):
            here.gone(1)
            await some_time(2)

    assert told(acts) == []

    async def comes_back(here: Presence) -> None:
        here.gone(1)
        here.seen(1)
        await some_time(1)

    assert told(comes_back)[0] == {1}


def test_a_telling_that_fails_is_made_again() -> None:
    tries: list[Collection[int]] = []

    def tell(nodes: Collection[int]) -> None:
        tries.append(nodes)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")

    async def fail() -> None:
        here = Presence(tell)
        telling = asyncio.ensure_future(here.keep_telling())
        with here.waiting(1):
            await some_time(3)
        telling.cancel()

    asyncio.run(fail())
    assert len(tries) > 1


def test_flower_sees_the_sites_as_after_a_heartbeat_of_each(tmp_path: Path) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    names = ("north", "south", "east", "west")
    keys = {name: public_text(new_private_key()) for name in names}
    nodes = {name: link.register(name, key).node_id for name, key in keys.items()}
    link.state.acknowledge_nodes([nodes["north"], nodes["south"]])
    link.state.acknowledge_node_heartbeat(nodes["east"], 10.0)
    assert link.online() == {"north", "south", "east"}
    facts = {one.name: one for one in link.state.get_node_info()}
    for name in ("north", "south"):
        assert facts[name].heartbeat_interval == facts["east"].heartbeat_interval
        assert abs(facts[name].online_until - facts["east"].online_until) < 5
        assert facts[name].last_activated_at
    before = facts["north"].last_activated_at
    link.state.acknowledge_nodes([nodes["north"]])
    assert {f.name: f for f in link.state.get_node_info()}["north"].last_activated_at == before
    link.unregister(keys["south"])
    link.state.acknowledge_nodes(list(nodes.values()))
    assert link.online() == {"north", "east", "west"}  # a revoked site does not come back


def test_a_daemon_that_starts_takes_the_place_of_one_that_counts_as_here(tmp_path: Path) -> None:
    """As after an answer that was lost, a kill, or a coordinator put back with other numbers."""
    link = SuperLink(tmp_path / "superlink.db")
    key = public_text(new_private_key())
    node = link.register("north", key).node_id
    found = []
    for _ in range(2):
        assert link.state.activate_node(node, 10.0)
        found.append(link.state.get_node_info()[0].last_activated_at)
        link.state.acknowledge_nodes([node])
    assert found[0] != found[1]  # by which a run knows that its message has to be asked anew
    assert link.online() == {"north"}
    link.unregister(key)
    assert not link.state.activate_node(node, 10.0)
