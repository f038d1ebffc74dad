"""Progress of a comparison on a terminal, and the table at its end."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.config.run_config import RunConfig
from server.rounds.run_rounds import RoundRecord
from simulations.comparison import compare as comparing
from simulations.comparison.arms import Arm, ArmOutcome
from simulations.comparison.compare import Comparison


class LiveProgress:
    """A line for the arm at work, and one line for each arm that is done."""

    def __init__(
        self,
        console: Console,
        config: RunConfig,
        arms: Sequence[Arm],
        seeds: int,
        every_seconds: float = 60.0,
    ) -> None:
        self._console = console
        self._every_seconds = every_seconds
        self._over = threading.Event()
        self._telling: threading.Thread | None = None
        self._rounds = config.training.rounds
        folds = config.cohort.split.folds or 1
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole = self._bar.add_task("all arms", total=len(arms) * seeds * folds, note="")
        self._now = self._bar.add_task("", total=self._rounds, note="")
        self._start = time.perf_counter()
        self.first_round_seconds: float | None = None
        self.progress = comparing.ComparisonProgress(
            arm=self._arm, round=self._round, done=self._done, kept=self._kept
        )

    def __enter__(self) -> Self:
        """Start showing; where there is no terminal, a line a minute says how far it is."""
        self._bar.start()
        if not self._console.is_terminal:
            self._telling = threading.Thread(target=self._tell, name="progress", daemon=True)
            self._telling.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing, however it ended."""
        self._over.set()
        if self._telling is not None:
            self._telling.join()
        self._bar.stop()

    def _tell(self) -> None:
        while not self._over.wait(self._every_seconds):
            whole, now = self._bar.tasks
            minutes = (time.perf_counter() - self._start) / 60
            done = f"{whole.completed:.0f} of {whole.total or 0:.0f} arms done"
            arm = now.description or "begins"
            rounds = f"round {now.completed:.0f} of {self._rounds}"
            self._console.print(f"  {minutes:5.1f} min: {done}; {arm}, {rounds}", soft_wrap=True)

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

    def _kept(self, arm: Arm, seed: int, fold: int) -> None:
        self._bar.advance(self._whole)
        place = f"seed {seed}" + (f", fold {fold}" if fold else "")
        self._console.print(f"  {arm:<13} {place:<16} done before the interruption")

    def _done(self, arm: Arm, seed: int, fold: int, outcome: ArmOutcome) -> None:
        self._bar.advance(self._whole)
        place = f"seed {seed}" + (f", fold {fold}" if fold else "")
        self._console.print(f"  {arm:<13} {place:<16} {outcome.seconds:6.1f} s")


_NO_VALUE = "-: no value, because too few patients could be measured or all had the same outcome."


def table_of(found: Comparison) -> Table:
    """Return one column an arm: the headline, each hospital's own, and the price in privacy."""
    title = f"{found.config.name}: {found.metric} on test patients"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for arm in found.arms:
        table.add_column(arm, justify="right", no_wrap=True)
    table.add_row("all", *(_headline(found, arm) for arm in found.arms), end_section=True)
    for cohort in found.cohorts:
        table.add_row(cohort.name, *(_own(found, arm, cohort.name) for arm in found.arms))
    notes = [_NO_VALUE] if any("-" in column.cells for column in table.columns) else []
    if "federated_dp" in found.arms:
        table.add_section()
        table.add_row("epsilon", *(_price(found, arm) for arm in found.arms))
        table.add_row("at 1e-5", *(_price(found, arm, common=True) for arm in found.arms))
        notes.append(
            'Epsilon is by patient, at each hospital; "at 1e-5" is the same at delta 1e-5. '
            "Simulated noise: no privacy claim."
        )
    table.caption = "\n".join(notes) or None
    return table


def _headline(found: Comparison, arm: Arm) -> str:
    values = [found.value(arm, seed) for seed in found.seeds]
    known = [value for value in values if math.isfinite(value)]
    spread = f"±{statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.3f}{spread}" if known else "-"


def _own(found: Comparison, arm: Arm, site: str) -> str:
    values = [found.site_value(arm, seed, site) for seed in found.seeds]
    known = [value for value in values if math.isfinite(value)]
    return f"{statistics.fmean(known):.3f}" if known else "-"


def _price(found: Comparison, arm: Arm, *, common: bool = False) -> str:
    outcomes = [o for seed in found.seeds for o in found.outcomes[arm, seed]]
    spent = [
        epsilon
        for o in outcomes
        for epsilon in (o.common_epsilon if common else o.epsilon).values()
    ]
    return f"{max(spent):.2f}" if spent else ""
