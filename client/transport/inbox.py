"""Inbox: requests on disk before anything is done about them.

Flower gives a message out once. One that is kept here survives a crash of the daemon: its
missing objects are fetched, and its answer is sent, by the next process.

    HOME/inbox/NAME/message, tree      as they came
                   /objects/NAME       what was fetched so far
                   /receipt            of this site's records, as the coordinator keeps it
                   /request            the whole request, once all is here
                   /reply.json         when the answer was made, what of it is still to be sent
    HOME/kept/NAME/NAME                objects of the last large requests: what the next one has in
                                       common with them, or asks anew after a cut, is not fetched
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from client.transport.fleet_client import PendingMessage
from common.platform.durable_files import link_or_copy, replace_durably
from common.platform.errors import StateDamaged

#: Training and validation of a round ask with the same weights, one after the other.
_MOST_KEPT = 2
#: Of requests that are smaller nothing is worth being kept.
_SMALLEST_KEPT = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How far an answer has been sent."""

    created_at: float  # seconds since 1970; part of the reply, so it is kept
    session: str  # Flower's, for the objects that are still to be sent
    left: tuple[str, ...] | None  # names of these objects; None: not offered yet
    receipt: str = ""  # of the site's records when the answer was made; part of the reply, too


class Inbox:
    """The folder; each method is one change on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = folder.with_name("kept")
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob("*.new"):
            shutil.rmtree(torn, ignore_errors=True)

    def keep(self, delivery: PendingMessage) -> None:
        """Keep a message durably; once kept it is there whole."""
        place = self._folder / delivery.id
        if place.exists():
            return
        temporary = place.with_name(f"{delivery.id}.new")
        (temporary / "objects").mkdir(parents=True, exist_ok=True)
        replace_durably(temporary / "tree", delivery.tree)
        replace_durably(temporary / "came", repr(time.time()).encode())
        replace_durably(temporary / "message", delivery.message)
        temporary.rename(place)

    def waiting(self) -> list[PendingMessage]:
        """Return the messages, first come first."""
        found = []
        for place in self._folder.iterdir():
            if place.suffix == ".new":
                continue
            with contextlib.suppress(OSError, ValueError):
                came = float((place / "came").read_bytes())
                message, tree = (place / "message").read_bytes(), (place / "tree").read_bytes()
                found.append((came, PendingMessage(message=message, tree=tree)))
        return [delivery for _, delivery in sorted(found, key=lambda item: item[0])]

    def lacking(self, delivery: PendingMessage) -> list[str]:
        """Return the names of objects that are not here yet."""
        here = {path.name for path in self._objects(delivery).iterdir()}
        return [name for name in delivery.objects if name not in here]

    def held(self, delivery: PendingMessage) -> int:
        """Return the bytes of a message's objects that are here."""
        return sum(path.stat().st_size for path in self._objects(delivery).iterdir())

    def put(self, delivery: PendingMessage, name: str, content: bytes) -> None:
        """Keep an object of a message; its name is its SHA-256, so a torn one shows."""
        path = self._objects(delivery) / name
        temporary = self._folder / delivery.id / f"{name}.part"
        temporary.write_bytes(content)
        temporary.replace(path)

    def adopt(self, delivery: PendingMessage, name: str) -> bool:
        """Return whether an object came with an earlier request; then it is here."""
        for path in self._kept.glob(f"*/{name}"):
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == name
            if whole:
                link_or_copy(path, self._objects(delivery) / name)
                return True
            path.unlink(missing_ok=True)  # torn when the machine went down
        return False

    def read(self, delivery: PendingMessage, name: str) -> bytes:
        """Return an object of a message; KeyError when it is not here."""
        try:
            return (self._objects(delivery) / name).read_bytes()
        except OSError as error:
            raise KeyError(name) from error

    def note_receipt(self, delivery: PendingMessage, receipt: str) -> None:
        """Keep the receipt that came with a request; before the request, which it belongs to."""
        if receipt:
            replace_durably(
                self._folder / delivery.id / "receipt", receipt.encode(errors="replace")
            )

    def receipt(self, delivery: PendingMessage) -> str:
        """Return the receipt that came with a request, or nothing."""
        path = self._folder / delivery.id / "receipt"
        return path.read_bytes().decode(errors="replace") if path.exists() else ""

    def request(self, delivery: PendingMessage) -> Path:
        """Return where the whole request lies, or is to be written."""
        return self._folder / delivery.id / "request"

    def complete(self, delivery: PendingMessage) -> None:
        """Put the objects aside: the request is written."""
        self._keep_objects(delivery)

    def sending(self, delivery: PendingMessage) -> Sending | None:
        """Return how far the answer was sent, or None when it was not made yet."""
        path = self._folder / delivery.id / "reply.json"
        try:
            facts = json.loads(path.read_bytes())
            left = facts["left"]
            return Sending(
                created_at=float(facts["created_at"]),
                session=str(facts["session"]),
                left=None if left is None else tuple(map(str, left)),
                receipt=str(facts.get("receipt", "")),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{path} cannot be read: {error!r}."
            raise StateDamaged(message) from error

    def note(self, delivery: PendingMessage, sending: Sending) -> None:
        """Note how far the answer was sent."""
        left = None if sending.left is None else list(sending.left)
        facts = {
            "created_at": sending.created_at,
            "session": sending.session,
            "left": left,
            "receipt": sending.receipt,
        }
        path = self._folder / delivery.id / "reply.json"
        replace_durably(path, json.dumps(facts).encode())

    def drop(self, delivery: PendingMessage) -> None:
        """Forget a message: it is answered, or nobody waits for its answer."""
        place = self._folder / delivery.id
        # That they are kept saves time, no more: they may be gone, or on another file system.
        with contextlib.suppress(OSError):
            self._keep_objects(delivery)
        gone = place.with_name(f"{delivery.id}.new")
        with contextlib.suppress(FileNotFoundError):
            place.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _keep_objects(self, delivery: PendingMessage) -> None:
        """Keep the objects of a large request, and of those before it no more than a few."""
        if self.held(delivery) < _SMALLEST_KEPT:
            for path in self._objects(delivery).iterdir():
                path.unlink(missing_ok=True)
            return
        kept = self._kept
        kept.mkdir(exist_ok=True)
        shutil.rmtree(kept / delivery.id, ignore_errors=True)
        self._objects(delivery).rename(kept / delivery.id)
        self._objects(delivery).mkdir()
        (kept / delivery.id).touch()
        oldest = sorted(kept.iterdir(), key=lambda path: path.stat().st_mtime)
        for place in oldest[:-_MOST_KEPT]:
            shutil.rmtree(place, ignore_errors=True)

    def _objects(self, delivery: PendingMessage) -> Path:
        return self._folder / delivery.id / "objects"
