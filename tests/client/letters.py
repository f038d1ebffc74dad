"""A coordinator that fits in a folder: gives out questions, keeps every byte that a site sends.

It is no network, and it is honest otherwise: a message is given out until it is said to be safe,
objects are stored under their hash, an answer that is sent in part stays in part. What it holds
is on disk, so that it outlives a site that is killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)

from client.transport.fleet_client import FleetClient, PendingMessage, Reply
from common.messages.flower_messages import object_ids, open_objects, record_of
from common.messages.signed_envelope import Envelope, seal
from common.messages.wire import Request
from common.platform.code_hash import bundle_hash
from common.platform.errors import LinkDown, RunGone

NODE = 7


class FolderFleet(FleetClient):
    """A site's calls of the FleetClient API, answered from a folder; `broken` says which fails."""

    def __init__(self, folder: Path, broken: Callable[[str], bool] = lambda _call: False) -> None:
        self.folder = folder
        self.broken = broken
        self.release = bundle_hash()
        self._last = ""
        for name in ("questions", "objects", "answers", "given", "received"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # --- the coordinator's side ----------------------------------------------------------

    def ask(
        self,
        request: Request | Envelope,
        *,
        seconds: float = 3600,
        number: int = 0,
        receipt: str = "",
    ) -> str:
        """Have a question given out; returns its name."""
        envelope = request if isinstance(request, Envelope) else seal(request)
        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=1,
            dst_node_id=NODE,
            reply_to_message_id="",
            group_id=str(number),
            created_at=time.time(),
            ttl=seconds,
            message_type="train",
        )
        message = make_message(metadata=metadata, content=record_of(envelope, receipt))
        with no_object_id_recompute():
            objects = {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
            tree = get_object_tree(message).SerializeToString()
            message.metadata.__dict__["_message_id"] = message.object_id
            name = message.object_id
        for key, content in objects.items():
            (self.folder / "objects" / key).write_bytes(content)
        proto = message_to_proto(remove_content_from_message(message)).SerializeToString()
        text = json.dumps({"message": proto.hex(), "tree": tree.hex()})
        (self.folder / "questions" / name).write_text(text)
        return name

    def answers(self) -> list[Envelope]:
        """Return the answers of which every byte is here, in no particular order."""
        return [answer for answer, _ in self.answers_by_name().values()]

    def answers_by_name(self) -> dict[str, tuple[Envelope, str]]:
        """Return these answers, each with the receipt that came with it."""
        found = {}
        for path in sorted((self.folder / "answers").iterdir()):
            facts = json.loads(path.read_text())
            objects = {
                n: p.read_bytes()
                for n in facts["objects"]
                if (p := self.folder / "received" / n).exists()
            }
            if len(objects) == len(facts["objects"]):
                opened = open_objects(objects.__getitem__, path.name)
                answer = Envelope(
                    header=opened.header, frames=tuple(opened.frames()), signature=opened.signature
                )
                found[path.name] = answer, opened.receipt
        return found

    def bytes_received(self) -> dict[str, int]:
        """Return how often each object came."""
        return {p.name: int(p.read_text()) for p in (self.folder / "given").glob("*.times")}

    # --- the site's calls ----------------------------------------------------------------

    def close(self) -> None:
        """Nothing is open."""

    def pull(self, wait_seconds: float) -> PendingMessage | None:
        """Give the next question out, again until it is safe."""
        del wait_seconds
        self._may_fail("pull")
        for path in sorted((self.folder / "questions").iterdir()):
            if not (self.folder / "given" / path.name).exists():
                self._last = path.name
                facts = json.loads(path.read_text())
                return PendingMessage(
                    message=bytes.fromhex(facts["message"]), tree=bytes.fromhex(facts["tree"])
                )
        return None

    def received(self) -> None:
        """Give the last question out no more."""
        if self._last:
            (self.folder / "given" / self._last).touch()

    def release_of(self, run_id: int) -> str:
        """Return this coordinator's release."""
        del run_id
        return self.release

    def fetch(self, run_id: int, name: str) -> bytes | None:
        """Return an object."""
        del run_id
        self._may_fail("fetch")
        path = self.folder / "objects" / name
        if not path.exists():
            raise RunGone(name)
        return path.read_bytes()

    def confirm(self, delivery: PendingMessage) -> None:
        """Hear that all is there."""
        del delivery
        self._may_fail("confirm")

    def offer(self, reply: Reply) -> tuple[list[str], str]:
        """Take an announcement; the objects that are not here are wanted."""
        self._may_fail("offer")
        names = object_ids(ObjectTree.FromString(reply.tree))
        root = next(n for n, c in reply.objects.items() if c.startswith(b"Message "))
        (self.folder / "answers" / root).write_text(json.dumps({"objects": names}))
        return [n for n in names if not (self.folder / "received" / n).exists()], "session"

    def give(self, run_id: int, session: str, name: str, content: bytes) -> bool:
        """Take an object."""
        del run_id, session
        self._may_fail("give")
        assert get_object_id(content) == name
        times = self.folder / "given" / f"{name}.times"
        times.write_text(str(int(times.read_text()) + 1 if times.exists() else 1))
        (self.folder / "received" / name).write_bytes(content)
        return True

    def _may_fail(self, call: str) -> None:
        if self.broken(call):
            message = f"{call} was cut"
            raise LinkDown(message)
