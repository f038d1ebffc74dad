"""What the coordinator keeps for a site over runs, and sends with every request.

Where the site's records stood, written by the site for itself: the number of charges and their
hash can be read by the coordinator, which knows them from each spend; the rest is sealed, so that
nobody else reads or makes it, and always fills whole blocks, so that its size tells nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from common.errors import UpdateRefused
from common.privacy.plan import LedgerHead

#: More is no receipt; one takes a few kilobytes.
LARGEST_RECEIPT = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Where a site's records stood when it sent an answer."""

    ledger: LedgerHead
    sealed: str  # base64

    def text(self) -> str:
        """Return the receipt as it travels."""
        return json.dumps({
            "charges": self.ledger.charges, "hash": self.ledger.hash, "sealed": self.sealed,
        })  # fmt: skip


def read_receipt(text: str) -> Receipt:
    """Return the receipt of a text; UpdateRefused for what is none."""
    try:
        if len(text) > LARGEST_RECEIPT:
            message = f"it has {len(text)} characters, expected at most {LARGEST_RECEIPT}"
            raise ValueError(message)
        facts = json.loads(text)
        charges, found, sealed = facts["charges"], facts["hash"], facts["sealed"]
        if not (isinstance(charges, int) and isinstance(found, str) and isinstance(sealed, str)):
            message = "its facts are not a number and two texts"
            raise TypeError(message)
        return Receipt(ledger=LedgerHead(charges=charges, hash=found), sealed=sealed)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        message = f"A receipt of a site's records cannot be read: {error!s:.200}"
        raise UpdateRefused(message) from error
