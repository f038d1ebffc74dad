from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config_yaml import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("no", "no"), ("off", "off"), ("y", "y"), ("true", True), ("012", "012"), ("12", 12),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("1e-3", 1e-3), ("1.5", 1.5), (".5", 0.5),
        ("-3", -3), ("1_000", "1_000"), ("0x10", "0x10"), ("null", None), ("~", None), ("", None),
        ("1E5", 1e5), ("'1'", "1"), ("e5", "e5"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
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
