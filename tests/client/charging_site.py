"""A process that charges one round after another until the ledger says no; prints how many."""

from __future__ import annotations

import sys
from pathlib import Path

from client.privacy.charge_text import Charge
from client.privacy.ledger import Ledger, Limit
from common.platform.errors import BudgetExceeded
from common.privacy.plan import Mechanism


def main() -> None:
    """Charge until refused."""
    ledger, made = Ledger(Path(sys.argv[1])), 0
    mechanism = Mechanism(
        noise_multiplier=8.0, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=1.0
    )
    while True:
        try:
            charge = Charge(
                cohort="patients", run=sys.argv[2], round=made, attempt=1, mechanism=mechanism
            )
            ledger.charge(charge, Limit(epsilon=3.0, delta=1e-4), 1e-4)
        except BudgetExceeded:
            break
        made += 1
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
