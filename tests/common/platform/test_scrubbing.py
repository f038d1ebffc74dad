from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.scrubbing import scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Cannot read /data/MUSTER MAX, 1950/a.dcm: bad", "Cannot read [path]"),
        ("Cannot read '/data/MUSTER MAX/a.dcm': bad", "Cannot read [path]: bad"),
        ("PosixPath('/data/a')", "PosixPath([path])"),
        ("folder=/data", "folder=[path]"),
        ("open file:///data/a.dcm", "open [path]"),
        ("from ~/images and ~anna/images", "from [path]"),
        (r"D:\bilder\Muster Max\a.dcm", "[path]"),
        (r"on \\pacs\share\a.dcm", "on [path]"),
        ("study 1.2.840.113619.2.55 twice", "study [uid] twice"),
        ("study 2.25.329800735698586629295641978511506172918", "study [uid]"),
        ("ask anna.b@klinik.example now", "ask [address] now"),
        ("root@pacs", "[address]"),
        ("GET https://pacs:8042/studies/77 failed", "GET https://pacs:8042[path] failed"),
    ],
)
def test_paths_uids_and_addresses_are_taken_out(text: str, left: str) -> None:
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "round 3 of 40, epsilon 0.12345678 of 3, 12:04:05",
        "10.0.0.1:8443 refused, release 2.13.0",
        "2/3 sites and/or none; application/json",
        "see https://host:8443",
    ],
)
def test_what_is_needed_to_understand_a_line_stays(text: str) -> None:
    assert scrub(text) == text


@given(st.text(), st.from_regex(r"[A-Z]{3,8}\^[A-Z]{3,8}", fullmatch=True), st.text())
def test_no_part_of_a_path_is_left_whatever_stands_around_it(
    before: str, name: str, after: str
) -> None:
    line = f"{before} /data/{name} {after}/x.dcm"
    assert name not in scrub(line.replace("\n", " ").replace("\r", " "))


@given(st.text())
def test_a_scrubbed_text_has_nothing_more_to_scrub(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once
