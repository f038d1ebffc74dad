"""The pages that a site reaches without being accepted: each proves itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.types import Receive, Scope, Send

from common.messages.enrolment import (
    CA_PATH,
    JOIN_PATH,
    JOINED_PATH,
    LEAVE_PATH,
    ROTATE_PATH,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    RotateRequest,
    StateRequest,
)
from common.messages.notice import NOTICE_PATH
from common.platform.errors import TrustRefused
from common.platform.logs import log
from server.enrolment.registry import EnrolledSite, Enrolment
from server.http.asgi import CLOSE, answer, read_body

_LARGEST_REQUEST = 16 * 1024
#: Strangers' questions have threads of their own: those of accepted sites stay free.
_AT_A_TIME = 2
_Request = TypeVar("_Request", JoinRequest, StateRequest, LeaveRequest, RotateRequest)
_Page = Callable[[Scope, Receive, Send], Awaitable[None]]


def enrolment_pages(
    enrolment: Enrolment,
    *,
    coordinator: str,
    authority: Callable[[], bytes],
    notice: Callable[[], bytes | None],
    changed: Callable[[], None],
) -> Mapping[tuple[str, str], _Page]:
    """Return the pages by method and path.

    `authority` gives the CA certificate's PEM, `notice` what sites are told of a move or None;
    `changed` is called when accepted keys changed.
    """

    async def certificate(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, 200, authority(), kind=b"application/x-pem-file")

    async def notes(_scope: Scope, _receive: Receive, send: Send) -> None:
        found = notice()
        await answer(send, 404 if found is None else 200, found or b"{}")

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

    def rotate(request: RotateRequest) -> EnrolledSite:
        site = enrolment.rotate(request)
        changed()
        log(__name__).warning("site changed its key", site=site.name, fingerprint=site.fingerprint)
        return site

    def leave(request: LeaveRequest) -> EnrolledSite:
        site = enrolment.leave(request)
        changed()
        log(__name__).warning("site left", site=site.name, fingerprint=site.fingerprint)
        return site

    return {
        ("GET", CA_PATH): certificate,
        ("GET", NOTICE_PATH): notes,
        ("POST", JOIN_PATH): _page(JoinRequest.parse, join, coordinator, limiter),
        ("POST", JOINED_PATH): _page(StateRequest.parse, joined, coordinator, limiter),
        ("POST", ROTATE_PATH): _page(RotateRequest.parse, rotate, coordinator, limiter),
        ("POST", LEAVE_PATH): _page(LeaveRequest.parse, leave, coordinator, limiter),
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
        match site.state:
            case "revoked" | "replaced":
                reason = f"The key of {site.name} was {site.state}. Ask the coordinator why."
                return JoinReply(state="refused", reason=reason, coordinator=coordinator)
            case state:
                shown = site.fingerprint
                return JoinReply(state=state, coordinator=coordinator, fingerprint=shown)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, _LARGEST_REQUEST)
        reply = await to_thread.run_sync(reply_to, body, limiter=limiter)
        if reply.state == "refused":
            await answer(send, 403, reply.to_json(), headers=[CLOSE])
        else:
            await answer(send, 200, reply.to_json())

    return page
