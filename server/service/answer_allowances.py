"""Allowance of bytes for each site's answer to each message.

A run says with each message how large an answer to it can be. A site announces an answer with its
size and the names of its objects, and then sends these. Refused before Flower sees them are

    an answer to a message that this site was not sent, or whose time is over    403
    an answer that announces more than it may be, or objects without end         413
    an object of no announced answer                                             403
    an object with which an answer grows beyond what it may be                   413

An answer that grew too large is over: nothing more of it is taken, and the run is told when it
asks for it. Memory is bounded by messages that are open, two answers each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

#: Two answers to one message: one, and the one that a site made anew after it lost the first.
_MOST_ANSWERS = 2
#: An answer's objects: three, and one for each further frame of 2 MiB before it is compressed.
_OBJECT_BYTES = 1024 * 1024
_FEWEST_OBJECTS = 16
#: An open message is forgotten so long after its time is over.
_GRACE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Overdraft:
    """Why a call is refused; status is HTTP's."""

    status: int
    detail: str


@dataclass(kw_only=True)
class _Answer:
    left: int  # bytes
    objects: frozenset[str]
    came: set[str] = field(default_factory=set)
    over: bool = False  # it was too large


@dataclass(kw_only=True)
class _Asked:
    node: int
    most: int  # bytes of an answer
    until: float
    answers: dict[str, _Answer] = field(default_factory=dict)


class Allowances:
    """What was asked of whom and is open."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._owners: dict[str, dict[int, _Answer]] = {}  # of objects, by node
        self._swept_at = 0.0

    def ask(self, messages: Mapping[str, int], most: int, seconds: float) -> None:
        """Note messages by name, each with the node it is for, and how large an answer may be."""
        self._sweep()
        until = self._clock() + seconds + _GRACE_SECONDS
        for name, node in messages.items():
            if name not in self._asked:
                self._asked[name] = _Asked(node=node, most=most, until=until)

    def announce(
        self, node: int, asked: str, answer: str, objects: Sequence[str], size: int | None
    ) -> Overdraft | None:
        """Note an answer that is about to come; return why it may not."""
        self._sweep()
        found = self._asked.get(asked)
        if found is None or found.node != node:
            return Overdraft(status=403, detail="Nobody waits for this answer.")
        if answer in found.answers:
            return _grown(found) if found.answers[answer].over else None
        if (size or 0) > found.most or len(objects) > _most_objects(found.most):
            return _grown(found)
        if len(found.answers) >= _MOST_ANSWERS:
            return Overdraft(status=403, detail="This message was answered already.")
        noted = _Answer(left=min(found.most, size or found.most), objects=frozenset(objects))
        found.answers[answer] = noted
        for name in noted.objects:
            self._owners.setdefault(name, {})[node] = noted
        return None

    def take(self, node: int, name: str, size: int) -> Overdraft | None:
        """Count an object of so many bytes; return why it is not taken."""
        answer = self._owners.get(name, {}).get(node)
        if answer is None:
            return Overdraft(status=403, detail="Nobody waits for this object.")
        if name in answer.came and not answer.over:
            return None
        if answer.over or size > answer.left:
            answer.over = True
            return Overdraft(status=413, detail="The answer is larger than such an answer can be.")
        answer.came.add(name)
        answer.left -= size
        return None

    def is_over(self, name: str) -> bool:
        """Return whether an object is of an answer that grew too large."""
        return any(answer.over for answer in self._owners.get(name, {}).values())

    @property
    def open(self) -> int:
        """Return how many messages and objects are remembered."""
        return len(self._asked) + len(self._owners)

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        for name in [n for n, asked in self._asked.items() if asked.until < now]:
            asked = self._asked.pop(name)
            for answer in asked.answers.values():
                for part in answer.objects:
                    owners = self._owners.get(part, {})
                    if owners.get(asked.node) is answer:
                        del owners[asked.node]
                    if not owners:
                        self._owners.pop(part, None)


def _most_objects(most: int) -> int:
    return _FEWEST_OBJECTS + most // _OBJECT_BYTES


def _grown(asked: _Asked) -> Overdraft:
    detail = f"The answer is larger than {asked.most} bytes, which such an answer can have."
    return Overdraft(status=413, detail=detail)
