"""Multipart answers are split at their boundaries alone, however they are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.pacs.connection.multipart import Malformed, boundary_of, parts

BOUNDARY = b"0123-boundary"
#: What could be taken for a boundary, or for half of one.
TRICKS = (
    b"\r\n--0123-boundar",
    b"--0123-boundary",
    b"\r\n--",
    b"\r",
    b"\n",
    b"\r\n",
    b"--\r\n",
    b"-",
    b"\r\n--0123-boundarx\r\n\r\n",
    b"Content-Length: 5\r\n\r\n",
)
#: With a length even the boundary itself may stand in the content.
WHOLE_TRICKS = (*TRICKS, b"\r\n--0123-boundary\r\n\r\n", b"\r\n--0123-boundary--")


def feeding(content: bytes, pieces: Sequence[int]) -> Callable[[int], bytes]:
    """Return a read that gives the content in pieces of these lengths, then of 7 bytes."""
    place, left = 0, list(pieces)

    def read(count: int) -> bytes:
        nonlocal place
        length = min(count, left.pop(0) if left else 7)
        found = content[place : place + length]
        place += length
        return found

    return read


def written(bodies: Sequence[bytes], *, with_length: bool) -> bytes:
    found = b""
    for body in bodies:
        length = b"Content-Length: %d\r\n" % len(body) if with_length else b""
        found += b"--%s\r\nContent-Type: application/dicom\r\n%s\r\n" % (BOUNDARY, length)
        found += body + b"\r\n"
    return found + b"--%s--\r\n" % BOUNDARY


def split(content: bytes, pieces: Sequence[int] = ()) -> list[bytes]:
    return [b"".join(part) for part in parts(feeding(content, pieces), BOUNDARY)]


bodies = st.lists(
    st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(TRICKS)), max_size=5).map(b"".join),
    max_size=4,
)
lengthy = st.lists(
    st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(WHOLE_TRICKS)), max_size=5).map(
        b"".join
    ),
    max_size=4,
)
cuts = st.lists(st.integers(1, 40), max_size=30)


@given(bodies, cuts)
def test_parts_come_back_as_they_were_written(given_bodies: list[bytes], pieces: list[int]) -> None:
    if any(b"\r\n--" + BOUNDARY in b"\r\n" + body for body in given_bodies):
        return  # no server may write that without a length
    assert split(written(given_bodies, with_length=False), pieces) == given_bodies


@given(lengthy, cuts)
def test_with_a_length_content_may_look_like_a_boundary(
    given_bodies: list[bytes], pieces: list[int]
) -> None:
    assert split(written(given_bodies, with_length=True), pieces) == given_bodies


@given(lengthy, st.booleans(), st.data())
def test_an_answer_that_is_cut_never_gives_a_part_that_is_not_whole(
    given_bodies: list[bytes],
    with_length: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    if not with_length and any(b"--" + BOUNDARY in body for body in given_bodies):
        return
    content = written(given_bodies, with_length=with_length)
    cut = content[: data.draw(st.integers(0, len(content) - 5))]
    whole, ended_well = until_malformed(cut)
    assert not ended_well
    assert whole == given_bodies[: len(whole)]


def until_malformed(content: bytes) -> tuple[list[bytes], bool]:
    """Return the parts that came whole, and whether the answer ended as it should."""
    whole: list[bytes] = []
    try:
        for part in parts(feeding(content, []), BOUNDARY):
            whole.append(b"".join(part))  # noqa: PERF401 - those before the error count
    except Malformed:
        return whole, False
    return whole, True


@given(st.binary(max_size=200), cuts)
def test_anything_else_is_malformed_or_has_no_parts(content: bytes, pieces: list[int]) -> None:
    with pytest.raises(Malformed):
        split(content.replace(BOUNDARY, b""), pieces)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"--0123-boundary\r\nContent-Length: 3\r\n\r\nabcd\r\n--0123-boundary--", "longer or"),
        (b"--0123-boundary\r\nContent-Length: 9999999999\r\n\r\nabc", "in the middle"),
        (b"--0123-boundaryX\r\n\r\nabc\r\n--0123-boundary--", "something behind it"),
        (b"--0123-boundary\r\n" + b"X: y\r\n" * 20000, "do not end"),
        (b"preamble " * 20000, "no boundary"),
        (b"", "in the middle"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        split(content, [1 << 20] * 10)


def test_preamble_padding_and_epilogue_are_passed_over() -> None:
    content = b"hello\r\n--0123-boundary \t\r\n\r\nA\r\n--0123-boundary--\r\nepilogue"
    assert split(content) == [b"A"]


def test_a_part_that_nobody_reads_is_skipped() -> None:
    content = written([b"A" * 50, b"B", b"C" * 50], with_length=True)
    found = [next(part).tobytes()[:1] for part in parts(feeding(content, []), BOUNDARY)]
    assert found == [b"A", b"B", b"C"]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('multipart/related;boundary="a b?c"', b"a b?c"),
        ("Multipart/Related; Boundary=abc", b"abc"),
        ("text/html", None),
        ("multipart/related", None),
        ("multipart/related; boundary=", None),
        (f"multipart/related; boundary={'a' * 71}", None),
        ('multipart/related; boundary="a\r\nb"', None),
    ],
)
def test_the_boundary_is_the_content_types(content_type: str, expected: bytes | None) -> None:
    if expected is None:
        with pytest.raises(Malformed):
            boundary_of(content_type)
    else:
        assert boundary_of(content_type) == expected
