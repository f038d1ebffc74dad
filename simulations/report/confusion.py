"""Confusion matrices of scores, where the scores are.

Public: matrices, confusion_tables, confusion_words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.config.run_config import RunConfig
from common.config.tasks.forms import LabelProbabilities
from common.metrics.decisions.confusion import Decisions, counted_cells, decided
from common.metrics.decisions.threshold import by_truth, counts_at
from common.metrics.intervals import Float
from common.tasks.task import Scores
from simulations.comparison.compare import Comparison
from simulations.report.pictures import shown


@dataclass(frozen=True, kw_only=True)
class CountedMatrix:
    """Patients (or images) by what is true, a row each, and what was predicted."""

    classes: tuple[str, ...]
    counts: Float  # (classes, classes)


@dataclass(frozen=True, kw_only=True)
class MatrixTable:
    """A matrix in the report."""

    title: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def matrices(config: RunConfig, scores: Scores) -> tuple[CountedMatrix, ...]:
    """Return the matrix of classes or grades, or one of each label at the run's threshold."""
    form, threshold = config.task.predicts, config.evaluation.threshold
    if not isinstance(form, LabelProbabilities) or (threshold is None and not form.ordered):
        return ()
    probability, truth = (p.double().numpy() for p in (scores.prediction, scores.target))
    asked, rows = config.task.alternatives, len(truth)
    if not isinstance(threshold, float):
        predicted = decided(probability, ordered=form.ordered)
        decisions = Decisions(truth.argmax(axis=1), predicted, np.arange(rows))
        names = asked[0]
        counts = counted_cells(decisions, len(names)).reshape(len(names), len(names))
        return (CountedMatrix(classes=names, counts=counts),)
    found = []
    for names, score, seen in zip(asked, probability.T, truth.T, strict=True):
        known = ~np.isnan(seen)
        whole = np.ones((1, int(known.sum())))
        counts = by_truth(counts_at(score[known], seen[known], whole, threshold)[0])
        found.append(CountedMatrix(classes=names, counts=counts))
    return tuple(found)


def confusion_tables(found: Comparison) -> tuple[MatrixTable, ...]:
    """Return the matrices of every arm on the test patients of the first seed."""
    return tuple(
        MatrixTable(
            title=shown(arm),
            classes=one.classes,
            rows=tuple(
                (name, *(f"{count:g}" for count in row))
                for name, row in zip(one.classes, one.counts.tolist(), strict=True)
            ),
        )
        for arm in found.arms
        for one in matrices(found.config, found.merged_scores(arm, found.seeds[0]))
    )


def confusion_words(config: RunConfig) -> str:
    """Return how it was decided what counts as predicted."""
    form, threshold = config.task.predicts, config.evaluation.threshold
    decided_by = (
        f"A label counts as predicted from a probability of {threshold:g} on"
        if isinstance(threshold, float)
        else "The most probable class counts as predicted"
    )
    if isinstance(form, LabelProbabilities) and form.ordered:
        decided_by = "The grade in the middle by probability counts as predicted"
    unit = "Images" if config.evaluation.unit == "image" else "Patients"
    return f"{decided_by}. {unit} of all hospitals' test part, first seed."
