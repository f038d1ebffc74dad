"""Guard of the sites' listener: it lets nine calls and three pages through.

This stands before Flower's application: a request that is refused here has run none of it.

    anything not in the tables                      404
    a Fleet call without an accepted site's key     401
    a body that is not the signed one, a replay     401
    a body larger than its path needs               413
    a message in another site's name                403
    an answer beyond its allowance                  403, 413 (server/service/answer_allowances.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from common.messages.answer_sizes import LARGEST_OBJECT
from common.messages.pull_headers import ANSWER_BYTES_HEADER
from common.messages.request_signature import hash_of
from common.platform.errors import TrustRefused
from common.platform.logs import log
from server.http.asgi import ClientGone, TooLarge, header, read_body, refuse, replayed, shown
from server.service.answer_allowances import Overdraft
from server.service.site_authentication import AcceptedSites, Member

_SMALL = 64 * 1024
#: Digits of a size.
_LONGEST_SIZE = 15
#: An object and Flower's wrapping.
LARGEST_BODY = LARGEST_OBJECT + _SMALL
#: Names of an answer's objects, 70 bytes each.
_LARGEST_PUSH = 4 * 1024 * 1024
#: A stranger gets no longer than this to send a page's request.
_PAGE_SECONDS = 10.0

#: The Fleet API less register-node, unregister-node (only the operator decides who belongs) and
#: get-fab (nobody needs a bundle that each side makes itself).
FLEET_PATHS: Mapping[str, int] = {
    "/v1/fleet/activate-node": _SMALL,
    "/v1/fleet/deactivate-node": _SMALL,
    "/v1/fleet/send-node-heartbeat": _SMALL,
    "/v1/fleet/pull-messages": _SMALL,
    "/v1/fleet/push-messages": _LARGEST_PUSH,
    "/v1/fleet/get-run": _SMALL,
    "/v1/fleet/push-object": LARGEST_BODY,
    "/v1/fleet/pull-object": _SMALL,
    "/v1/fleet/confirm-message-received": _SMALL,
}

#: A page for people without a key yet: method and path, and what answers.
Page = Callable[[Scope, Receive, Send], Awaitable[None]]
#: Says why a push is refused, if it is: path, body, announced size and sender.
RefusalOf = Callable[[str, bytes, int | None, Member], Overdraft | None]


class SiteGuard:
    """The whole application of the listener that sites reach."""

    def __init__(
        self,
        app: ASGIApp,
        members: AcceptedSites,
        *,
        pages: Mapping[tuple[str, str], Page],
        refusal_of: RefusalOf,
    ) -> None:
        self._app = app
        self._members = members
        self._pages = dict(pages)
        self._refusal_of = refusal_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._admit(scope, receive, send)
        except TooLarge:
            await refuse(scope, send, 413, "The request is too large.")
        except (ClientGone, TimeoutError):
            return

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = (scope.get("method", ""), scope.get("path", ""))
        page = self._pages.get(place)
        if scope["type"] == "http" and page is not None:
            async with asyncio.timeout(_PAGE_SECONDS):
                await page(scope, receive, send)
            return
        largest = FLEET_PATHS.get(place[1]) if place[0] == "POST" else None
        if scope["type"] != "http" or largest is None:
            await refuse(scope, send, 404, "Not found.")
            return
        try:
            caller = self._members.authenticate(scope)
        except TrustRefused as error:
            await refuse(scope, send, 401, str(error))
            return
        shown(scope, caller.member.site)
        body, member = await read_body(scope, receive, largest), caller.member
        if hash_of(body) != caller.body_sha256:
            await refuse(scope, send, 401, "The body is not the one that was signed.")
            return
        no = self._refusal_of(place[1], body, _announced(scope), member)
        if no is not None:
            log(__name__).warning("call refused", site=member.site, fault=no.detail)
            await refuse(scope, send, no.status, no.detail)
            return
        await self._app(scope, replayed(body, receive), send)


def _announced(scope: Scope) -> int | None:
    """Return the size that an answer is announced to have; None where it is not said."""
    text = header(scope, ANSWER_BYTES_HEADER.encode()) or ""
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_SIZE else None
