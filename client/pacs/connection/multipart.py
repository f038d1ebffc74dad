"""Streaming parser of multipart/related (RFC 2046, RFC 2387).

A part with a Content-Length is taken by it, so that no pixels can look like a boundary; what
follows must be the boundary all the same. A stream that ends early, or is not what it says, is
`Malformed`, and the part at which that shows is never taken for complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from email.message import Message

Read = Callable[[int], bytes]  # up to so many bytes; none at the end

_PIECE_BYTES = 1 << 18
_LONGEST_HEAD = 1 << 16
_LONGEST_PREAMBLE = 1 << 16
_LENGTH = re.compile(
    rb"^content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*$", re.IGNORECASE | re.MULTILINE
)
#: RFC 2046 5.1.1: at most 70 of these.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class Malformed(Exception):
    """The answer is no multipart, or ends before it should."""


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names; Malformed where there is none."""
    message = Message()
    message["content-type"] = content_type
    found = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not isinstance(found, str):
        problem = f"an answer of type {content_type[:100]!r}, expected multipart/related"
        raise Malformed(problem)
    if not _BOUNDARY.fullmatch(found):
        raise Malformed("a boundary that RFC 2046 does not allow")
    return found.encode("ascii")


def parts(read: Read, boundary: bytes) -> Iterator[Iterator[memoryview]]:
    """Yield the parts, each as the pieces of its content; a part not read to its end is skipped."""
    stream = _Stream(read, b"\r\n--" + boundary)
    stream.skip_preamble()
    while stream.goes_on():
        part = stream.part()
        yield part
        for _ in part:  # what the caller left
            pass


class _Stream:
    """Bytes that came and were not handed out yet."""

    def __init__(self, read: Read, delimiter: bytes) -> None:
        self._read, self._delimiter = read, delimiter
        self._held = b"\r\n"  # the first delimiter may stand at the very beginning
        self._at = 0

    def skip_preamble(self) -> None:
        while (found := self._held.find(self._delimiter)) < 0:
            if len(self._held) > _LONGEST_PREAMBLE:
                raise Malformed("no boundary where the parts should begin")
            self._more()
        self._at = found + len(self._delimiter)

    def goes_on(self) -> bool:
        """Step over the rest of a delimiter's line; return whether a part follows."""
        self._need(2)
        if self._held[self._at : self._at + 2] == b"--":
            return False
        line = self._until(b"\r\n")
        if line.strip(b" \t"):
            raise Malformed("a boundary with something behind it")
        return True

    def part(self) -> Iterator[memoryview]:
        """Read a part's head, and yield its content up to the next delimiter."""
        self._need(2)
        if self._held[self._at : self._at + 2] == b"\r\n":  # a part without headers
            self._at += 2
            head = b""
        else:
            head = self._until(b"\r\n\r\n").replace(b"\r\n", b"\n")
        stated = _LENGTH.search(head)
        if stated is None:
            yield from self._searched()
        else:
            yield from self._counted(int(stated[1]))

    def _counted(self, length: int) -> Iterator[memoryview]:
        """Yield so many bytes; the last piece only once the delimiter is seen to follow."""
        while length > (here := len(self._held) - self._at):
            if here:
                yield memoryview(self._held)[self._at :]
                length -= here
                self._at = len(self._held)
            self._more()
        end = self._at + length
        self._need(length + len(self._delimiter))
        end = self._at + length
        if self._held[end : end + len(self._delimiter)] != self._delimiter:
            raise Malformed("a part is longer or shorter than its Content-Length")
        if length:
            yield memoryview(self._held)[self._at : end]
        self._at = end + len(self._delimiter)

    def _searched(self) -> Iterator[memoryview]:
        """Yield bytes until the delimiter; a delimiter may be cut by the end of a piece."""
        while (end := self._held.find(self._delimiter, self._at)) < 0:
            safe = len(self._held) - len(self._delimiter) + 1
            if safe > self._at:
                yield memoryview(self._held)[self._at : safe]
                self._at = safe
            self._more()
        if end > self._at:
            yield memoryview(self._held)[self._at : end]
        self._at = end + len(self._delimiter)

    def _until(self, mark: bytes) -> bytes:
        while (end := self._held.find(mark, self._at)) < 0:
            if len(self._held) - self._at > _LONGEST_HEAD:
                raise Malformed("the headers of a part do not end")
            self._more()
        found = self._held[self._at : end]
        self._at = end + len(mark)
        return found

    def _need(self, count: int) -> None:
        while len(self._held) - self._at < count:
            self._more()

    def _more(self) -> None:
        piece = self._read(_PIECE_BYTES)
        if not piece:
            raise Malformed("the answer ends in the middle")
        rest = self._held[self._at :]
        self._held = rest + piece if rest else piece
        self._at = 0
