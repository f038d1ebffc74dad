"""How much of its request each site has fetched by now, for the run that sent it."""

from __future__ import annotations

from common.messages.pull_headers import fetched_header


class Transfers:
    """Bytes of the message that a site is fetching, by its node."""

    def __init__(self) -> None:
        self._fetched: dict[int, int] = {}

    def begin(self, node: int) -> None:
        """Note that a site was given a message, whose objects it fetches next."""
        self._fetched[node] = 0

    def fetched(self, node: int, size: int) -> None:
        """Note that a site was given an object of so many bytes."""
        self._fetched[node] = self._fetched.get(node, 0) + size

    def end(self, node: int) -> None:
        """Note that a site has all of its message."""
        self._fetched.pop(node, None)

    def header(self) -> str:
        """Return the bytes of each site that is fetching, as a header's value."""
        return fetched_header(self._fetched.copy())
