"""A run's look costs what was answered, and finds in time what nobody announces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
)

from server.service.calls.replies import LOOK_SECONDS, Replies
from server.service.superlink import SuperLink
from tests.server.service.calls.test_frequent_calls import Parts, told


@dataclass
class Clock:
    """A clock that stands still unless it is moved."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_between_two_looks_at_everything_only_answered_messages_are_due(clock: Clock) -> None:
    replies = Replies(clock=clock)
    assert replies.due("run", ["a", "b"]) == {"a", "b"}
    assert replies.due("run", ["a", "b"]) == set()
    replies.came("b")
    assert replies.due("run", ["a", "b"]) == {"b"}
    replies.taken("b")
    assert replies.due("run", ["a", "b"]) == set()
    clock.now += LOOK_SECONDS
    assert replies.due("run", ["a"]) == {"a"}


def test_an_answer_that_was_not_given_to_its_run_stays_due(clock: Clock) -> None:
    replies = Replies(clock=clock)
    replies.due("run", [])
    replies.came("a")
    assert replies.due("run", ["a"]) == {"a"}
    assert replies.due("run", ["a"]) == {"a"}


def test_runs_look_each_in_their_own_time(clock: Clock) -> None:
    replies = Replies(clock=clock)
    replies.due("one", ["a"])
    assert replies.due("other", ["b"]) == {"b"}


def test_answers_that_nobody_takes_are_forgotten(clock: Clock) -> None:
    replies = Replies(clock=clock)
    replies.came("a")
    clock.now += 3600
    replies.due("run", [])
    assert replies.due("run", ["a"]) == set()


def test_each_answer_of_a_round_is_looked_up_once_whatever_else_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.service.calls.replies.LOOK_SECONDS", 3600.0)
    link = SuperLink(tmp_path / "superlink.db")
    t = told(link, by_flower=False)
    started = link.start_run("demo")
    task = link.state.get_task_by_token(started.token)
    assert task is not None
    assert link.state.activate_task(task.task_id)
    assert link.state.activate_node(t.member.node_id, 30)
    node = t.member.node_id
    asked = [
        Parts.of(run=started.number, source=SUPERLINK_NODE_ID, to=node, said=str(number))
        for number in range(5)
    ]
    push = PushAppMessagesRequest(
        messages_list=[parts.proto for parts in asked],
        message_object_trees=[parts.tree for parts in asked],
    )
    assert t.run("messages", "push-messages", push, started.token).status_code == 200
    looked: list[set[str]] = []
    look = link.state.get_message_res

    def counted(message_ids: set[str], run_id: int) -> object:
        looked.append(set(message_ids))
        return look(message_ids, run_id)

    monkeypatch.setattr(link.state, "get_message_res", counted)
    wanted = PullAppMessagesRequest(message_ids=[parts.id for parts in asked])
    t.run("nothing yet", "pull-messages", wanted, started.token)
    assert looked.pop() == {parts.id for parts in asked}
    for parts in asked:
        answer = Parts.of(run=started.number, source=node, to=SUPERLINK_NODE_ID, reply_to=parts.id)
        given = PushMessagesRequest(
            node=Node(node_id=node),
            messages_list=[answer.proto],
            message_object_trees=[answer.tree],
            clientapp_runtime_list=[0.0],
        )
        t.site("an answer", "push-messages", given)
        for came in (True, False):
            found = t.run("a look", "pull-messages", wanted, started.token)
            messages = PullAppMessagesResponse.FromString(found.content).messages_list
            assert [m.metadata.reply_to_message_id for m in messages] == [parts.id] * came
    assert looked == [{parts.id} for parts in asked]
