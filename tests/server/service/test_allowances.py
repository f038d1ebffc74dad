from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.service.answer_allowances import Allowances

MIB = 1024 * 1024


def asked(most: int = 16 * 1024, clock: float = 0.0) -> Allowances:
    found = Allowances(clock=lambda: clock)
    found.ask({"question": 7}, most, 60.0)
    return found


def status(allowances: Allowances, *arguments: object) -> int:
    found = allowances.announce(*arguments)  # type: ignore[arg-type]
    return 200 if found is None else found.status


def test_an_answer_within_its_size_is_taken_and_may_be_sent_again() -> None:
    found = asked()
    for _ in range(2):  # announced anew after a cut
        assert status(found, 7, "question", "answer", ["a", "b"], 900) == 200
    assert [found.take(7, "a", 400), found.take(7, "a", 400), found.take(7, "b", 500)] == [None] * 3
    assert not found.is_over("a")


def test_what_announces_more_than_it_may_be_is_refused_before_anything_comes() -> None:
    found = asked()
    assert status(found, 7, "question", "answer", ["a"], 16 * 1024 + 1) == 413
    assert status(found, 7, "question", "answer", [str(n) for n in range(17)], 900) == 413
    assert found.take(7, "a", 1) is not None


def test_nobody_answers_for_another_or_what_was_not_asked_or_a_third_time() -> None:
    found = asked()
    assert status(found, 8, "question", "answer", ["a"], 9) == 403
    assert status(found, 7, "other", "answer", ["a"], 9) == 403
    for name, expected in (("first", 200), ("second", 200), ("third", 403)):
        assert status(found, 7, "question", name, [name], 9) == expected
    stranger = found.take(8, "first", 1)
    assert stranger is not None
    assert stranger.status == 403


def test_an_answer_that_grows_beyond_what_it_announced_is_over() -> None:
    found = asked()
    assert status(found, 7, "question", "answer", ["a", "b", "c"], 1000) == 200
    assert found.take(7, "a", 900) is None
    grown = found.take(7, "b", 200)
    assert grown is not None
    assert grown.status == 413
    assert found.is_over("a")
    assert found.is_over("c")
    assert found.take(7, "c", 1) is not None
    assert status(found, 7, "question", "answer", ["a", "b", "c"], 1000) == 413


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 9000)), max_size=60))
def test_no_more_is_taken_than_two_answers_may_be(calls: list[tuple[int, int, int]]) -> None:
    found, taken = asked(), dict[str, int]()
    for answer, number, size in calls:
        name = f"{answer}-{number}"
        names = [f"{answer}-{n}" for n in range(6)]
        if found.announce(7, "question", str(answer), names, None) is None and (
            found.take(7, name, size) is None
        ):
            taken.setdefault(name, size)
    assert sum(taken.values()) <= 2 * 16 * 1024


def test_what_is_over_is_forgotten() -> None:
    now = [0.0]
    found = Allowances(clock=lambda: now[0])
    for number in range(100):
        now[0] += 100.0
        found.ask({f"question {number}": 7}, 9000, 10.0)
        found.announce(7, f"question {number}", f"answer {number}", [f"part {number}"], 9)
    assert found.open <= 4
