"""HTTP headers that a site adds to its calls: who it is, the pull's wait, the signature."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from client.transport.request_signing import add_signature
from common.messages.pull_headers import (
    ANSWER_BYTES_HEADER,
    DELIVERY_HEADER,
    HERE_HEADER,
    RECEIVED_HEADER,
    WAIT_HEADER,
)


@dataclass(frozen=True)
class NodeHeaders:
    """Says whose call it is, as Flower's NodeAuthHttpInterceptor does.

    That one's module loads FastAPI for a table of errors: 6 MB of a daemon that never serves.
    """

    key: ec.EllipticCurvePrivateKey

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign the time, and send the public key with it."""
        at = datetime.now(UTC).isoformat()
        signature = sign_message(self.key, at.encode("ascii"))
        context.request.headers.update(
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: _text(public_key_to_bytes(self.key.public_key())),
                TIMESTAMP_HEADER: at,
                FLEET_HTTP_SIGNATURE_HEADER: _text(signature),
            }
        )
        return call_next(context)


def _text(content: bytes) -> str:
    return b64encode(content).decode("ascii")


class PullHeaders:
    """The headers of a pull: how long to wait, and which message is safe here; and of a push."""

    def __init__(self) -> None:
        self.wait_seconds = 0.0
        self.answer_bytes = 0
        self.is_heartbeat = False  # whether the coordinator takes a pull for one
        self._came = ""
        self._safe = ""

    def safe(self) -> None:
        """Note that the last message is on disk."""
        self._safe = self._came

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Say both with a pull, and hear which message comes."""
        if isinstance(context.message, PushMessagesRequest):
            context.request.headers[ANSWER_BYTES_HEADER] = str(self.answer_bytes)
        if not isinstance(context.message, PullMessagesRequest):
            return call_next(context)
        context.request.headers[WAIT_HEADER] = f"{self.wait_seconds:g}"
        context.request.headers[RECEIVED_HEADER] = self._safe
        response = call_next(context)
        self._came = response.headers.get(DELIVERY_HEADER, "")
        self.is_heartbeat = HERE_HEADER in response.headers
        return response


@dataclass(frozen=True)
class Signing:
    """Signs each request, last of all that is done to it."""

    key: ec.EllipticCurvePrivateKey

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign and send."""
        add_signature(context.request, self.key)
        return call_next(context)
