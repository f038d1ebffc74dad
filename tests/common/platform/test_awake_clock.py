from __future__ import annotations

from common.platform.awake_clock import AwakeClock


def test_what_a_process_stood_still_counts_as_one_turn() -> None:
    now = [100.0]
    clock = AwakeClock(5.0, lambda: now[0])
    start = clock()
    seen = []
    for step in (1.0, 5.0, 600.0, 0.5, 5.1, 2.0):
        now[0] += step
        seen.append(clock() - start)
    # As one: on a machine so busy that each turn is long, time still passes.
    assert seen == [1.0, 6.0, 11.0, 11.5, 16.5, 18.5]
