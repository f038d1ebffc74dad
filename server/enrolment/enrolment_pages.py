"""The three pages that a site without a key may reach."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.types import Receive, Scope, Send

from common.messages.enrolment import (
    CA_PATH,
    JOIN_PATH,
    JOINED_PATH,
    JoinReply,
    JoinRequest,
    StateRequest,
)
from common.platform.errors import TrustRefused
from common.platform.logs import log
from server.enrolment.registry import EnrolledSite, Enrolment
from server.http.asgi import CLOSE, answer, read_body

_LARGEST_REQUEST = 16 * 1024
#: Strangers' questions have threads of their own: those of accepted sites stay free.
_AT_A_TIME = 2
_Request = TypeVar("_Request", JoinRequest, StateRequest)
_Page = Callable[[Scope, Receive, Send], Awaitable[None]]


def enrolment_pages(
    enrolment: Enrolment, *, coordinator: str, authority: bytes
) -> Mapping[tuple[str, str], _Page]:
    """Return the pages by method and path; `authority` is the CA certificate's PEM."""

    async def certificate(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, 200, authority, kind=b"application/x-pem-file")

    limiter = CapacityLimiter(_AT_A_TIME)

    def join(request: JoinRequest) -> EnrolledSite:
        site = enrolment.join(request)
        log(__name__).info(
            "site joined", site=site.name, fingerprint=site.fingerprint, state=site.state
        )
        return site

    def joined(request: StateRequest) -> EnrolledSite:
        site = enrolment.state_of(request)
        if site is None:
            message = f"{request.site} has not joined with this key. Ask for an invitation."
            raise TrustRefused(message)
        return site

    return {
        ("GET", CA_PATH): certificate,
        ("POST", JOIN_PATH): _page(JoinRequest.parse, join, coordinator, limiter),
        ("POST", JOINED_PATH): _page(StateRequest.parse, joined, coordinator, limiter),
    }


def _page(
    parse: Callable[[bytes], _Request],
    decide: Callable[[_Request], EnrolledSite],
    coordinator: str,
    limiter: CapacityLimiter,
) -> _Page:
    def reply_to(body: bytes) -> JoinReply:
        try:
            site = decide(parse(body))
        except TrustRefused as error:
            log(__name__).warning("join refused", reason=str(error), stranger=True)
            return JoinReply(state="refused", reason=str(error), coordinator=coordinator)
        if site.state == "revoked":
            reason = f"The key of {site.name} was revoked. Ask the coordinator why."
            return JoinReply(state="refused", reason=reason, coordinator=coordinator)
        return JoinReply(state=site.state, coordinator=coordinator, fingerprint=site.fingerprint)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, _LARGEST_REQUEST)
        reply = await to_thread.run_sync(reply_to, body, limiter=limiter)
        if reply.state == "refused":
            await answer(send, 403, reply.to_json(), headers=[CLOSE])
        else:
            await answer(send, 200, reply.to_json())

    return page
