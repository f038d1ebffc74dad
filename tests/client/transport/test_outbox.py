"""Answers are kept for a coordinator that forgot them, within a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.transport import outbox
from client.transport.outbox import Outbox
from common.messages.signed_envelope import Envelope, seal
from common.messages.wire import Refusal, RefusalReason


def answer(number: int, run: str = "run") -> Envelope:
    return seal(Refusal(run=run, round=number, site="north", reason=RefusalReason.PAUSED))


def test_answers_of_earlier_rounds_are_kept_as_long_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Outbox(tmp_path)
    for number in range(1, 31):
        kept.keep(f"{number:064x}", answer(number))
    found = kept.find(f"{1:064x}")
    assert found is not None
    assert found.digest == answer(1).digest
    size = next(tmp_path.rglob("*.answer")).stat().st_size
    monkeypatch.setattr(outbox, "_MOST_BYTES", 5 * size + size // 2)
    kept.keep(f"{31:064x}", answer(31))
    kept.keep(f"{1:065x}"[1:], answer(1, "other"))  # its last round is never too much
    left = {number for number in range(1, 32) if kept.has(f"{number:064x}")}
    assert {30, 31} <= left
    assert 5 <= len(left - {1}) <= 7
    assert 2 not in left
