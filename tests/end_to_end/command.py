"""Runs `wardround-simulate compare` as a user types it, and reads what it left."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch

from simulations.cli.app import main


class SiteResult(TypedDict):
    """A hospital in results.json."""

    name: str
    patients: int
    images: int
    not_used: dict[str, int]


class ArmResult(TypedDict):
    """The part of an arm in results.json that is looked at here."""

    mean: float | None
    per_site: dict[str, float | None]
    epsilon: float | None


class Results(TypedDict):
    """The part of results.json that is looked at here."""

    metric: str
    sites: list[SiteResult]
    left_out: dict[str, str]
    arms: dict[str, ArmResult]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a user sees of one command."""

    status: int
    text: str  # everything on the screen
    folder: Path

    @property
    def results(self) -> Results:
        """Return results.json."""
        content: Results = json.loads((self.folder / "results.json").read_text("utf-8"))
        return content

    def counted(self) -> dict[str, tuple[int, int]]:
        """Return patients and images by hospital."""
        return {s["name"]: (s["patients"], s["images"]) for s in self.results["sites"]}

    def not_used(self) -> Counter[str]:
        """Return how often each reason left something out, over all hospitals."""
        found: Counter[str] = Counter()
        for site in self.results["sites"]:
            found.update(site["not_used"])
        return found

    def means(self) -> dict[str, float]:
        """Return each arm's headline; nan would not compare as larger than anything."""
        arms = self.results["arms"]
        return {arm: float("nan" if a["mean"] is None else a["mean"]) for arm, a in arms.items()}


def compare(config: str, data: Path, *options: str, out: Path | None = None) -> Ran:
    """Write the configuration beside the data and run the command on one thread."""
    out = out or data.parent / "out"
    path = data.parent / "run.yaml"
    path.write_text(config, encoding="utf-8")
    typed = ["wardround-simulate", "compare", str(path), "--data", str(data), "--out", str(out)]
    before, threads, screen, status = sys.argv, torch.get_num_threads(), io.StringIO(), 0
    sys.argv = [*typed, "--threads", "1", *options]
    try:
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = before
        torch.set_num_threads(threads)
    return Ran(status=status, text=screen.getvalue(), folder=out)
