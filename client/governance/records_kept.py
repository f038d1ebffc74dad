"""The file records.json: where a home's records stood."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from client.governance.records_statement import Statement, statement_from
from common.messages.receipt import Receipt, read_receipt
from common.platform.durable_files import replace_durably
from common.platform.errors import AnswerNotAdmitted, StateDamaged


@dataclass(frozen=True, kw_only=True)
class KnownRecords:
    """What the file holds."""

    statement: Statement | None = None  # the newest of this home's own, as far as it knows
    unread: tuple[Receipt, ...] = ()  # the coordinator's last that this home cannot read
    settled: tuple[str, ...] = ()  # hashes of such that the admin has answered for

    def open_questions(self) -> tuple[Receipt, ...]:
        """Return what this home could not read and nobody has answered for."""
        return tuple(one for one in self.unread if digest_of(one) not in self.settled)


def read_kept(path: Path) -> KnownRecords | None:
    """Return what a file holds, None where there is none; StateDamaged when it cannot be read."""
    try:
        facts = json.loads(path.read_bytes())
        statement = statement_from(facts["statement"])
        if facts["statement"] is not None and statement is None:
            message = "its statement cannot be read"
            raise ValueError(message)
        return KnownRecords(
            statement=statement,
            unread=tuple(map(read_receipt, facts["unread"])),
            settled=tuple(map(str, facts["settled"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AnswerNotAdmitted) as error:
        message = (
            f"{path} cannot be read: {error!r}. Put the newest copy back from the backup, or "
            "remove it: the other records and the coordinator know as much."
        )
        raise StateDamaged(message) from error


def write_kept(path: Path, kept: KnownRecords) -> None:
    """Write the file durably, for its user alone."""
    facts = {
        "statement": None if kept.statement is None else kept.statement.to_json(),
        "unread": [receipt.text() for receipt in kept.unread],
        "settled": list(kept.settled),
    }
    replace_durably(path, json.dumps(facts).encode(), mode=0o600)


def digest_of(receipt: Receipt) -> str:
    """Return what a receipt is known by."""
    return sha256_of(receipt.text())


def sha256_of(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
