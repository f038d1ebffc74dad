"""Receipt: what the coordinator keeps for a site over runs.

Where the site's records stood, written by the site for itself: the number of charges and their
hash can be read by the coordinator, which knows them from each spend; the rest is sealed, so that
nobody else reads or makes it, and always fills whole blocks, so that its size tells nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from common.platform.bounded_json import Bounds, read_json
from common.platform.errors import AnswerNotAdmitted
from common.privacy.plan import LedgerHead

#: More is no receipt; one takes a few kilobytes.
LARGEST_RECEIPT = 1 << 16
_BOUNDS = Bounds(characters=LARGEST_RECEIPT, depth=1, values=3)
#: Charges of a ledger, and what a database's integer holds.
_MOST_CHARGES = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Where a site's records stood when it sent an answer."""

    ledger: LedgerHead
    sealed: str  # base64

    def text(self) -> str:
        """Return the receipt as it travels."""
        return json.dumps(
            {"charges": self.ledger.charges, "hash": self.ledger.hash, "sealed": self.sealed}
        )


def read_receipt(text: str) -> Receipt:
    """Return the receipt of a text; AnswerNotAdmitted for what is none."""
    try:
        facts = read_json(text, _BOUNDS)
        if not isinstance(facts, dict):
            message = "it holds no facts"
            raise TypeError(message)
        charges, found, sealed = facts["charges"], facts["hash"], facts["sealed"]
        if type(charges) is not int or not isinstance(found, str) or not isinstance(sealed, str):
            message = "its facts are not a number and two texts"
            raise TypeError(message)
        if not 0 <= charges <= _MOST_CHARGES:
            message = f"it says {charges} charges"
            raise ValueError(message)
        return Receipt(ledger=LedgerHead(charges=charges, hash=found), sealed=sealed)
    except (KeyError, TypeError, ValueError) as error:
        message = f"A receipt of a site's records cannot be read: {error!s:.200}"
        raise AnswerNotAdmitted(message) from error
