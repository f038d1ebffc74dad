"""All that a site's client sends, field by field, as it leaves in real HTTP requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from flwr.app import ConfigRecord
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.message_pb2 import Metadata
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

#: The Fleet API's calls, by the last part of their path.
_CALLS: Mapping[str, type[Message]] = {
    "activate-node": fleet_pb2.ActivateNodeRequest,
    "deactivate-node": fleet_pb2.DeactivateNodeRequest,
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
    "pull-messages": fleet_pb2.PullMessagesRequest,
    "push-messages": fleet_pb2.PushMessagesRequest,
    "get-run": run_pb2.GetRunRequest,
    "pull-object": message_pb2.PullObjectRequest,
    "push-object": message_pb2.PushObjectRequest,
    "confirm-message-received": message_pb2.ConfirmMessageReceivedRequest,
}
#: Objects of JSON whose keys are names of labels, metrics or rows: the configuration fixes them.
_BY_NAME = frozenset({"statistics.cells", "statistics.sums", "statistics.tables"})


@dataclass
class Sent:
    """Fields by name, and the values that were seen of each."""

    fields: dict[str, list[object]] = field(default_factory=dict)
    headers: list[dict[str, object]] = field(default_factory=list)  # of our messages
    requests: list[Metadata] = field(default_factory=list)  # that came to the site
    bytes: int = 0
    faults: list[str] = field(default_factory=list)  # what could not be read

    def add(self, name: str, value: object) -> None:
        """Note a field."""
        self.fields.setdefault(name, []).append(value)

    def request(self, request: httpx.Request) -> None:
        """Note all of a request."""
        path, body = urlsplit(str(request.url)).path, request.read()
        self.bytes += len(body)
        self.add(f"path {path}", request.method)
        for name, value in request.headers.items():
            self.add(f"header {name}", value)
        call = _CALLS.get(path.rpartition("/")[2])
        if call is not None:
            message = call.FromString(body)
            assert message.SerializeToString() == body, f"{path} has more than its fields"
            self.proto(call.__name__, message)
            if isinstance(message, message_pb2.PushObjectRequest):
                self.object(message.object_content)
        elif body:
            self.json(path.rpartition("/")[2], json.loads(body))

    def proto(self, place: str, message: Message) -> None:
        """Note the fields of a protobuf message that are set; none may be unknown."""
        assert len(UnknownFieldSet(message)) == 0, f"{place} has a field without a name"
        for told, value in message.ListFields():
            name = f"{place}.{told.name}"
            if told.message_type is None:
                self.add(name, value)
                continue
            for part in value if told.is_repeated else (value,):
                # A tree's nodes hold nodes of the same kind.
                deeper = place if told.message_type.name == "ObjectTree" else name
                if told.message_type.name == "ObjectTree" and not place.endswith("ObjectTree"):
                    deeper = "ObjectTree"
                self.proto(deeper, part)

    def json(self, place: str, content: object, under: str = "") -> None:
        """Note the keys of JSON; those that the configuration names are told as one."""
        if under in _BY_NAME or not isinstance(content, Mapping):
            self.add(f"{place}: {under}", content)
            return
        for key, value in content.items():
            if key == "spend" and isinstance(value, Mapping):
                self.json("spend", value)
            elif key != "spend":
                self.json(place, value, f"{under}.{key}" if under else key)

    def object(self, content: bytes) -> None:
        """Note what an object of a Flower message holds."""
        kind, children, length = get_object_head_values_from_object_content(content)
        body = content[len(content) - length :]
        self.add(f"object {kind}", len(content))
        match kind:
            case "Message":
                self.proto("Message", message_pb2.Message.FromString(body))
            case "RecordDict":
                for name in json.loads(body):
                    self.add("RecordDict key", name)
            case "ConfigRecord":
                for name, value in ConfigRecord.inflate(content).items():
                    self.add(f"ConfigRecord {name}", value)
                    if name == "header":
                        facts = json.loads(str(value))
                        self.json("header", {n: v for n, v in facts.items() if n != "message"})
                        told = json.loads(facts["message"])
                        self.headers.append(told)
                        self.json(str(told["kind"]), told)
            case _:
                raise AssertionError(kind)
        assert len(children) == len(set(children))


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[Sent]:
    """Yield what goes to an address, at the last place before the connection."""
    sent, real = Sent(), httpx.HTTPTransport.handle_request

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if f"{request.url.host}:{request.url.port}" == address:
            try:
                sent.request(request)
            except Exception as error:  # noqa: BLE001 - in a thread of the site's; told in the test
                sent.faults.append(repr(error))
        return real(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", handle)
        yield sent
