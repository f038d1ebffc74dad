"""Setting of a run, as its sites need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.run_config import RunConfig
from server.enrolment.receipts import ReceiptStore


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """What the sites of a run need to know of it."""

    run: str
    seed: int
    config: RunConfig
    members: Callable[[], Mapping[str, str]]  # public keys of accepted sites, by name
    arriving: Path  # a folder for answers on their way
    receipts: ReceiptStore  # of the sites' records, over all runs
    waits: bool = False  # for every site, before the first round

    @property
    def round_seconds(self) -> float:
        """How long sites have for one round."""
        return self.config.exchange.round_minutes * 60
