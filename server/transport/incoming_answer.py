"""An answer on its way: its objects on disk as they come.

A slow site keeps nobody waiting. Of an update no more than a tensor is in memory: its frames lie
here, under a second name of the service's own files, until the round is saved.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from common.messages.flower_messages import open_objects
from common.messages.signed_envelope import unseal
from common.messages.signing_key import verify
from common.messages.transfer_progress import Transfer
from common.messages.wire import Answer, Message, SiteUpdate
from common.platform.errors import AnswerNotAdmitted
from server.rounds.late_answers import awake
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted
from server.transport.runtime import AnswerTooLarge, Arrival, Runtime

#: A site that is online and sends nothing of its answer for so long is asked again beside it.
_STILL_SECONDS = 180.0


@dataclass
class Arriving:
    """One answer; `site` is who was asked."""

    site: str
    public_key: str
    arrival: Arrival
    folder: Path
    largest: int  # bytes that all of it may have
    received: int = 0  # bytes so far
    since: float = field(default_factory=awake)  # when it was announced, on the run's clock
    receipt: str = ""  # of the site's records; known once the answer was opened
    heard: float = field(default_factory=awake)  # when something of it came last

    def fetch(self, runtime: Runtime) -> bool:
        """Fetch what has come; returns whether all is here.

        RunGone when it never will be, AnswerTooLarge when it is more than it may be.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self.arrival.objects:
            path = self.folder / name
            if path.exists():
                continue
            size = runtime.fetch(name, path)
            if size is None:
                return False
            self.received += size
            self.heard = awake()
            if self.received > self.largest:
                message = f"{self.received} bytes came, expected at most {self.largest}"
                raise AnswerTooLarge(message)
        return True

    @property
    def transfer(self) -> Transfer:
        """How far it is; what is still to come is taken to be like what came."""
        here = sum((self.folder / name).exists() for name in self.arrival.objects)
        whole = self.received * len(self.arrival.objects) // max(here, 1)
        return Transfer(done=self.received, total=whole, seconds=awake() - self.since)

    @property
    def stands_still(self) -> bool:
        """Whether nothing has come of it for long."""
        return awake() - self.heard > _STILL_SECONDS

    def opened(self) -> Answer | NotAdmitted:
        """Return the answer, or why it is none; of an update the tensors stay here, until `close`.

        The SuperLink keeps it until `close`: a run that goes on from its last saved round asks for
        it again, and the site need not send it again.
        """
        answer: Answer | NotAdmitted
        try:
            answer = self.open()
        except NotSigned as error:
            answer = not_admitted(self.site, Fault.NOT_SIGNED, str(error))
        except AnswerNotAdmitted as error:
            answer = not_admitted(self.site, Fault.UNREADABLE, str(error))
        if not isinstance(answer, SiteUpdate):
            shutil.rmtree(self.folder, ignore_errors=True)
        return answer

    def open(self) -> Answer:
        """Return the answer; AnswerNotAdmitted unless it is one, signed by this very site.

        All frames are read once; after that each tensor is read when it is needed.
        """
        opened = open_objects(self._read, self.arrival.name)
        hashing = _Hashing(opened.header)
        message = unseal(opened.header, hashing.of(opened.frames()), opened.frame)
        if not verify(self.public_key, hashing.digest(), opened.signature):
            raise NotSigned("the signature does not fit the site's key")
        if not _is_answer(message) or message.site != self.site:
            text = f"it is a {type(message).__name__} that names another sender"
            raise AnswerNotAdmitted(text)
        self.receipt = opened.receipt
        return message

    def close(self, runtime: Runtime) -> None:
        """Throw away what lies here and at the SuperLink."""
        shutil.rmtree(self.folder, ignore_errors=True)
        runtime.confirm(self.arrival.name)

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise KeyError(name) from error


def not_admitted(site: str, fault: Fault, detail: str) -> NotAdmitted:
    """Return the one answer of a site, not admitted."""
    return NotAdmitted(site=site, fault=fault, detail=detail, used_up=True)


class NotSigned(AnswerNotAdmitted):
    """An answer that its sender did not sign."""


class _Hashing:
    """The digest that a site signs (`digest_of` of its envelope), taken while frames pass."""

    def __init__(self, header: str) -> None:
        self._hash = hashlib.sha256()
        self._add(header.encode())

    def of(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the frames."""
        for frame in frames:
            self._add(frame)
            yield frame

    def digest(self) -> bytes:
        """Return the digest of header and all frames that passed."""
        return self._hash.digest()

    def _add(self, part: bytes) -> None:
        self._hash.update(len(part).to_bytes(8, "big"))
        self._hash.update(part)


def _is_answer(message: Message) -> TypeGuard[Answer]:
    return isinstance(message, Answer)
