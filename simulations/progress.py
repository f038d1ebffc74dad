"""What a person sees while a comparison runs, and the table at its end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.config import RunConfig
from server.rounds import RoundRecord
from simulations import compare as comparing
from simulations.arms import Arm, Outcome
from simulations.compare import Comparison


class LiveProgress:
    """A line for the arm at work, and one line for each arm that is done."""

    def __init__(
        self, console: Console, config: RunConfig, arms: Sequence[Arm], seeds: int
    ) -> None:
        self._console = console
        self._rounds = config.training.rounds
        folds = config.cohort.split.folds or 1
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=console, transient=True,
        )  # fmt: skip
        self._whole = self._bar.add_task("all arms", total=len(arms) * seeds * folds, note="")
        self._now = self._bar.add_task("", total=self._rounds, note="")
        self._start = time.perf_counter()
        self.first_round_seconds: float | None = None
        self.progress = comparing.Progress(arm=self._arm, round=self._round, done=self._done)

    def __enter__(self) -> Self:
        """Start showing."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing, however it ended."""
        self._bar.stop()

    def _arm(self, arm: Arm, seed: int, fold: int) -> None:
        name = f"{arm}, seed {seed}" + (f", fold {fold}" if fold else "")
        self._bar.reset(self._now, total=self._rounds, description=name, note="")

    def _round(self, label: str, record: RoundRecord) -> None:
        if self.first_round_seconds is None:
            self.first_round_seconds = time.perf_counter() - self._start
        note = f"{label}: round {record.round}"
        if record.score is not None and math.isfinite(record.score):
            note += f", validation {record.score:.4f}"
        for site, reason in record.left_out.items():
            note += f", without {site} ({reason})"
        self._bar.update(self._now, completed=record.round, note=note)

    def _done(self, arm: Arm, seed: int, fold: int, outcome: Outcome) -> None:
        self._bar.advance(self._whole)
        place = f"seed {seed}" + (f", fold {fold}" if fold else "")
        self._console.print(f"  {arm:<13} {place:<16} {outcome.seconds:6.1f} s")


def table_of(found: Comparison) -> Table:
    """Return the arms with their headline, each hospital's, and the price in privacy."""
    several = len(found.seeds) > 1
    table = Table(title=f"{found.config.name}: {found.metric} on test patients")
    for name in ("arm", "all", *(c.name for c in found.cohorts), "epsilon"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for arm in found.arms:
        values = [found.value(arm, seed) for seed in found.seeds]
        spread = f" ±{statistics.stdev(values):.3f}" if several else ""
        own = [
            statistics.fmean(found.site_value(arm, seed, c.name) for seed in found.seeds)
            for c in found.cohorts
        ]
        epsilons = [
            e for seed in found.seeds for o in found.outcomes[arm, seed] for e in o.epsilon.values()
        ]
        price = f"{max(epsilons):.2f}*" if epsilons else ""
        table.add_row(
            arm, f"{statistics.fmean(values):.3f}{spread}", *(f"{v:.3f}" for v in own), price
        )
    if "federated_dp" in found.arms:
        table.caption = "* by patient, at each hospital. Simulated noise: no privacy claim."
    return table
