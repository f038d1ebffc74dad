from __future__ import annotations

import pytest

from common.data.cell_values import Notation, is_either, near, number_of, one_of, yes_or_no


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("50.5", 50.5),
        (" -2 ", -2.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.234", 1.234),
        ("50,5", 50.5),
        ("-0,25", -0.25),
        (",5", 0.5),
        ("0,123", 0.123),
        ("1,2345", 1.2345),
        ("1234,567", 1234.567),
        ("1.234,5", 1234.5),
        ("1.234.567", 1234567.0),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567.0),
        ("1'234.5", 1234.5),
        ("1\u2019234,5", 1234.5),
        ("1 234,567", 1234.567),
        ("1\u202f234", 1234.0),
        ("\u22122,5", -2.5),
        ("1,234", None),
        ("-12,500", None),
        ("12,5 mg", None),
        ("<5", None),
        ("1_000", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("1,2,3", None),
        ("1.2.3", None),
        ("12.34,5", None),
        ("01.02.2024", None),
        ("", None),
        ("1 2", None),
    ],
)
def test_a_number_is_read_as_its_writer_meant_it_or_not_at_all(
    text: str, value: float | None
) -> None:
    assert number_of(text) == value


@pytest.mark.parametrize(
    ("notation", "comma", "point"),
    [
        ("unknown", None, 1.234),
        ("semicolons", 1.234, None),
        ("comma", 1.234, 1234.0),
        ("point", 1234.0, 1.234),
    ],
)
def test_what_may_be_two_numbers_is_told_apart_by_the_table_alone(
    notation: Notation, comma: float | None, point: float | None
) -> None:
    assert (number_of("1,234", notation), number_of("1.234", notation)) == (comma, point)
    assert is_either("1,234", notation) == (comma is None)
    assert is_either("1.234", notation) == (point is None)
    assert not is_either("1,2345", notation)


def test_a_declared_sign_refuses_the_other() -> None:
    assert number_of("50,5", "point") is None
    assert number_of("1,234.5", "comma") is None
    assert number_of("50.5", "comma") == 50.5


def test_numbers_that_are_equal_are_one_value_and_words_are_exact() -> None:
    assert [one_of(t, ("0", "1")) for t in ("1", "1.0", "01", " 1 ", "1,0", "2", "")] == [
        "1",
        "1",
        "1",
        "1",
        "1",
        None,
        None,
    ]
    assert one_of("1", ("1.0", "2.0")) == "1.0"
    assert one_of("1", ("01", "1")) == "1"
    assert one_of("1.0", ("01", "1")) is None  # two values are equal to it
    assert one_of("i", ("I", "II")) is None
    assert near("i", ("I", "II")) == "I"
    assert near("grade-2", ("Grade 2", "Grade 3")) == "Grade 2"
    assert near("--", ("Grade 2", "+")) is None


def test_a_two_is_neither_yes_nor_no() -> None:
    assert [yes_or_no(t) for t in ("1", "1.0", "01", "Yes", "J", "ja", "TRUE", "1,0")] == [1.0] * 8
    assert [yes_or_no(t) for t in ("0", "0.0", "no", "N", "nein", "FALSE", "-0")] == [0.0] * 7
    assert [yes_or_no(t) for t in ("2", "-1", "", "na", "maybe", "0.5")] == [None] * 6
