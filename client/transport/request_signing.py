"""Signature of a site on each request to the coordinator."""

from __future__ import annotations

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from common.messages.pull_headers import ANSWER_BYTES_HEADER, RECEIVED_HEADER, WAIT_HEADER
from common.messages.request_signature import SignedRequest, hash_of, new_number

#: Flower's header for the time, which both signatures are of.
TIME_HEADER = "flwr-timestamp"


def add_signature(request: httpx.Request, key: ec.EllipticCurvePrivateKey) -> None:
    """Sign a request that is complete otherwise; what is changed afterwards is refused."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    signed = SignedRequest(
        method=request.method,
        path=path,
        query=query,
        body_sha256=hash_of(request.read()),
        signed_at=request.headers[TIME_HEADER],
        number=new_number(),
        wait_seconds=request.headers.get(WAIT_HEADER, ""),
        received=request.headers.get(RECEIVED_HEADER, ""),
        answer_bytes=request.headers.get(ANSWER_BYTES_HEADER, ""),
    )
    request.headers.update(signed.headers(key))
