"""A page whose tags are all closed, in their order."""

from __future__ import annotations

from html.parser import HTMLParser


class Strict(HTMLParser):
    """Notes what is open; a tag that is closed out of order is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        del attrs
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it was the last."""
        assert self.open.pop() == tag
