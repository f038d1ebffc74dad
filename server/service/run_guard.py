"""Guard of a run's process: which messages it sends, and which answers grew too large.

A push of messages says how large their answers may be; whoever asks for an object of an answer
that grew beyond it is told so with status 413, and closes it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from common.messages.answer_sizes import SMALL_ANSWER
from common.messages.pull_headers import ANSWER_SECONDS_HEADER, LARGEST_ANSWER_HEADER
from server.http.asgi import body_or_refused, header, refuse, replayed
from server.service.answer_allowances import Allowances
from server.service.calls.frequent_calls import RUNTIME_PULL_OBJECT, RUNTIME_PUSH
from server.service.superlink import asked_of, wanted_object

#: Of messages whose sender says nothing.
_SECONDS = 3600.0


class RunGuard:
    """Wraps what answers runs; requests to other paths pass."""

    def __init__(self, app: ASGIApp, allowances: Allowances, largest_body: int) -> None:
        self._app = app
        self._allowances = allowances
        self._largest_body = largest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] not in {RUNTIME_PUSH, RUNTIME_PULL_OBJECT}:
            await self._app(scope, receive, send)
            return
        body = await body_or_refused(scope, receive, send, self._largest_body)
        if body is None:
            return
        if scope["path"] == RUNTIME_PUSH:
            most = int(_number(scope, LARGEST_ANSWER_HEADER, SMALL_ANSWER))
            seconds = _number(scope, ANSWER_SECONDS_HEADER, _SECONDS)
            self._allowances.ask(asked_of(body), most, seconds)
        elif self._allowances.is_over(wanted_object(body)):
            await refuse(scope, send, 413, "The answer is larger than such an answer can be.")
            return
        await self._app(scope, replayed(body, receive), send)


def _number(scope: Scope, name: str, otherwise: float) -> float:
    """Return a header as a number; the run's process is ours, so that one is enough to try."""
    try:
        return float(header(scope, name.encode()) or otherwise)
    except ValueError:
        return otherwise
