"""A receipt is another's text: what is none is refused, and no database or file is asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.messages.receipt import LARGEST_RECEIPT, read_receipt
from common.platform.errors import AnswerNotAdmitted
from server.enrolment.receipts import ReceiptStore

GOOD = {"charges": 3, "hash": "ab", "sealed": "QQ=="}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 60_000,
        "x" * (LARGEST_RECEIPT + 1),
        '{"charges": 1}',
        json.dumps(GOOD | {"charges": 10**30}),
        json.dumps(GOOD | {"charges": -1}),
        json.dumps(GOOD | {"charges": True}),
        json.dumps(GOOD | {"charges": 1.0}),
        json.dumps(GOOD | {"hash": "\ud800"}),
        json.dumps(GOOD | {"sealed": "\udfff"}),
        json.dumps(GOOD)[:-1] + ', "charges": 4}',
    ],
    ids=range(13),
)
def test_what_is_no_receipt_is_refused_and_not_kept(tmp_path: Path, text: str) -> None:
    receipts = ReceiptStore(tmp_path / "receipts.db")
    receipts.keep("north", "key", json.dumps(GOOD))
    receipts.keep("north", "key", text)
    assert json.loads(receipts.of("north", "key")) == GOOD
    with pytest.raises(AnswerNotAdmitted):
        read_receipt(text)
