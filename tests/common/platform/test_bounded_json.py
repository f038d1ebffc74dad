from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.run_config import CONFIG_BOUNDS, read_config
from common.platform.bounded_json import Bounds, check_bounds, read_json
from common.platform.errors import ConfigurationError

BOUNDS = Bounds(characters=1000, depth=5, values=50)
_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = st.recursive(
    _PLAIN, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=20
)
WIDE = Bounds(characters=10**6, depth=100, values=10**5)


@given(_VALUES)
def test_what_json_writes_is_read_as_json_reads_it(content: object) -> None:
    for plain in (False, True):
        text = json.dumps(content, ensure_ascii=plain)
        assert read_json(text, WIDE) == json.loads(text)


@given(st.text(alphabet='[]{}:,"\\ \n0a', max_size=40) | st.text(max_size=40))
def test_what_json_refuses_is_refused_and_nothing_else_is_raised(text: str) -> None:
    try:
        found = read_json(text, WIDE)
    except ValueError:
        return
    assert found == json.loads(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 6 + "]" * 6, "nested 6 deep, expected at most 5"),
        ("[" * 900, "values"),
        ("[" + ",".join("1" * 60) + "]", "about 60 values, expected at most 50"),
        ('"' + "x" * 1000 + '"', "1002 characters, expected at most 1000"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "'b' is given twice"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "no number"),
        ("1e999", "larger than any number"),
        ("1" * 41, "41 digits"),
        ("0." + "1" * 41, "43 characters"),
        ('["\\ud800"]', "surrogates"),
        ('{"\\udfff": 1}', "surrogates"),
    ],
)
def test_what_is_too_much_or_no_value_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_json(text, BOUNDS)


def test_brackets_and_commas_in_text_are_text() -> None:
    text = json.dumps({"a": "[[[[[[[[" + '",\\' * 30})
    assert read_json(text, BOUNDS) == json.loads(text)


#: Texts on which a careless reader takes time or memory out of all proportion.
HOSTILE = {
    "open": "[" * 200_000,
    "objects": '{"a":' * 50_000,
    "quotes": '"' * 262_144,
    "escaped quotes": '"' + '\\"' * 131_000,
    "a lone backslash": '"' + '\\"' * 130_000 + "\\",
    "keys": "{" + ",".join(f'"k{n}":1' for n in range(20_000)) + "}",
    "digits": "9" * 200_000,
    "names": json.dumps({"task": {f"kinb{n}": 1 for n in range(15_000)}}),
    "one name": json.dumps({"n" * 250_000: 1}),
    "value": json.dumps({"name": "x" * 250_000}),
    "list": json.dumps({"cohort": {"table": {"numbers": [{} for _ in range(9_000)]}}}),
    "yaml": "a: &a [x,x]\nb: &b [*a,*a]\n",
    "targets": json.dumps({"task": {"kind": "diagnosis", "target": ["\u202e\x1b[2J"] * 9_000}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_configuration_takes_long_or_says_more_than_a_page(name: str) -> None:
    # What is usual is a hundredth of a second; a reader without bounds does not come back.
    with pytest.raises(ConfigurationError) as refused:
        read_config(HOSTILE[name])
    text = str(refused.value)
    assert len(text) < 16_000
    assert all(sign.isprintable() or sign == "\n" for sign in text)


@given(st.binary(max_size=60))
def test_a_configuration_of_any_bytes_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_config(content.decode("latin-1"))


def test_bounds_are_those_of_the_largest_run_that_anybody_writes() -> None:
    sites = {f"hospital-{n:03d}-{'x' * 40}": 12345 for n in range(1000)}
    check_bounds(json.dumps({"public_patients": sites, "weights": sites}), CONFIG_BOUNDS)
