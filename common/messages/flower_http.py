"""Flower's calls on our own HTTP client.

Its own takes proxies from the environment, also for this machine, and follows redirects, with
requests that are signed for one coordinator.

Public: on_client, KEPT_SECONDS.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import httpx

#: A connection that is not used is kept so long by whoever calls; the coordinator keeps it longer.
#: httpx's own 5 s are those between two heartbeats: each would need a new connection, and a new
#: one waits where strangers do.
KEPT_SECONDS = 60


class _Calls(Protocol):
    _client: httpx.Client


Calls = TypeVar("Calls", bound=_Calls)


def on_client(calls: Calls, client: httpx.Client) -> Calls:
    """Return the same calls, which go out by `client` from now on."""
    calls._client.close()  # noqa: SLF001 - there is no other way in
    calls._client = client  # noqa: SLF001
    return calls
