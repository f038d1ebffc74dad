from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.config.yaml import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("012", "012"),
        ("12", 12),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e-3", 1e-3),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", -3),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1E5", 1e5),
        ("'1'", "1"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_words_and_numbers_stay_what_they_are(text: str, meant: object) -> None:
    found = read_yaml(f"key: {text}")
    assert found == {"key": meant}
    assert type(found["key"]) is type(meant)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_every_number_that_json_writes_is_read_back_as_itself(number: float) -> None:
    assert read_yaml(f"key: {json.dumps(number)}") == {"key": number}


_WORDS = st.text() | st.sampled_from(["no", "1e-3", "012", "1:30", "2024-01-01", "~", "", "<<"])
_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.none() | st.booleans() | _NUMBERS | _WORDS


@given(st.dictionaries(_WORDS, _VALUES | st.lists(_VALUES)))
def test_what_is_written_is_read_back_as_itself(content: dict[str, object]) -> None:
    assert read_yaml(write_yaml(content)) == content


def bomb() -> str:
    """Return 400 bytes that stand for a billion values."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for known, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join([f'*{known}'] * 9)}]")
    return "\n".join(lines)


BOMB = bomb()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "it has an anchor, &a; remove it"),
        ("a: *b", "it has an alias, \\*b; write the value"),
        ("a: &b {<<: *b}", "anchor"),
        ("a: !!int 1:1:1", "it has the tag"),
        ("a: !!set {b}", "the tag"),
        ("a: !!python/object:os.system x", "the tag"),
        ("[" * 5000, "nested deeper than 20"),
        ("\n".join("  " * n + "a:" for n in range(300)), "nested deeper than 20"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
        ("x" * 1_100_000, "1100000 characters, expected at most 1048576"),
        ("a: " + "9" * 5000, "a number has 5000 characters"),
        ('a: "\\ud800"', "half a character"),
    ],
)
def test_what_would_take_time_or_memory_without_end_is_refused(text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        read_yaml(text)


def test_a_text_that_is_said_to_be_one_is_read() -> None:
    assert read_yaml("a: !!str 12\nb: ! no") == {"a": "12", "b": "no"}
