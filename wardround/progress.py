"""How far a call is: a line that renews itself in a notebook, the command's own in a script."""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

from common.config.run_config import RunConfig
from server.rounds.round_record import RoundRecord
from simulations.cli.progress import LiveProgress
from simulations.comparison.arms import Arm, ArmOutcome
from simulations.comparison.compare import ComparisonProgress

#: Between two renewals of a line in a notebook.
_SECONDS = 0.2


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


class ProgressLine(Protocol):
    """A line of text that can be renewed."""

    def say(self, text: str, part: float | None = None) -> None:
        """Show a text in place of the last one, and which part, 0 to 1, is done."""
        ...


class NotebookLine:
    """A line below a notebook's cell; it keeps what was said last."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()  # type: ignore[no-untyped-call]  # IPython ships it so
        self._last = -math.inf

    def say(self, text: str, part: float | None = None) -> None:
        """Renew the line; while something is at work, a few times a second at most."""
        now = time.monotonic()
        if part is not None and now - self._last < _SECONDS:
            return
        show = self._handle.display if self._last == -math.inf else self._handle.update
        self._last = now
        bar = "" if part is None else f'<progress value="{part:.3f}" max="1"></progress> '
        shown = {"text/plain": text, "text/html": f"{bar}{html.escape(text)}"}
        show(shown, raw=True)  # type: ignore[no-untyped-call]  # IPython ships it so


@contextmanager
def reading(*, shown: bool, ends: str = "") -> Iterator[Callable[[str], None]]:
    """Yield what is told of each hospital; in a notebook `ends` takes its place when all is told.

    A result that shows itself below the cell says the same, and better.
    """
    if not shown:
        yield lambda _line: None
    elif in_notebook():
        line, lines = NotebookLine(), list[str]()

        def tell(text: str) -> None:
            lines.append(text)
            line.say("; ".join(lines))

        yield tell
        if ends:
            line.say(ends)
    else:
        console = _console()
        yield lambda text: console.print(f"  {text}", soft_wrap=True)


@contextmanager
def comparing(
    run: RunConfig, arms: Sequence[Arm], seeds: int, *, shown: bool
) -> Iterator[ComparisonProgress]:
    """Yield whom a comparison tells how far it is."""
    if not shown:
        yield ComparisonProgress()
    elif in_notebook():
        line = NotebookLine()
        progress = NotebookProgress(line, run, arms, seeds)
        try:
            yield progress.progress
        except BaseException:
            line.say(f"Stopped: {progress.place}")
            raise
        line.say(progress.ended())
    else:
        with LiveProgress(_console(), run, arms, seeds) as live:
            yield live.progress


def _console() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


class NotebookProgress:
    """Arms, seeds and rounds of a comparison as one line."""

    def __init__(self, line: ProgressLine, run: RunConfig, arms: Sequence[Arm], seeds: int) -> None:
        self._line, self._rounds = line, run.training.rounds
        self._whole = len(arms) * seeds * (run.cohort.split.folds or 1)
        self._what = f"{', '.join(arms)}; {seeds} seed{'s' * (seeds != 1)}"
        self._done = 0
        self.place = "before the first round"
        self.progress = ComparisonProgress(
            arm=self._arm, round=self._round, done=self._ended, kept=self._kept
        )

    def ended(self) -> str:
        """Return what was done, without times, so that a notebook that is run again is the same."""
        return f"Done: {self._what}."

    def _arm(self, arm: Arm, seed: int, fold: int) -> None:
        self.place = f"{arm}, seed {seed}" + (f", fold {fold}" if fold else "")
        self._say(self.place, 0)

    def _round(self, label: str, record: RoundRecord) -> None:
        note = f"{self.place}: round {record.round} of {self._rounds}"
        if label != self.place.partition(",")[0]:
            note += f" ({label})"
        if record.score is not None and math.isfinite(record.score):
            note += f", validation {record.score:.4f}"
        self._say(note, min(record.round / self._rounds, 1.0))

    def _ended(self, _arm: Arm, _seed: int, _fold: int, _outcome: ArmOutcome) -> None:
        self._done += 1

    def _kept(self, _arm: Arm, _seed: int, _fold: int) -> None:
        self._done += 1

    def _say(self, text: str, part: float) -> None:
        self._line.say(text, (self._done + part) / max(self._whole, 1))
