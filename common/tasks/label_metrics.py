"""Statistics and metrics by label, for tasks that predict probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from common.config.parts.ranges import UNKNOWN
from common.config.run_config import Evaluation
from common.metrics import classification as metrics
from common.metrics import noised_histogram
from common.metrics.auroc_interval import auroc, merged_auroc
from common.metrics.intervals import (
    Estimate,
    Float,
    bootstrapped,
    mean_estimate,
    mean_of_labels,
    weighted_mean,
)
from common.metrics.label_release import LabelRelease, LabelRows, known_rows, release_label
from common.metrics.score_ranges import Ranges, merged_average_precision, merged_sensitivity
from common.metrics.small_cells import patients_in, releasable
from common.metrics.statistics import Statistics
from common.tasks.task import Scores, loss_estimate, loss_sums, owners, whole

#: scores, outcomes and weights of one label -> one value a draw.
_Metric = Callable[[Float, Float, Float], Float]
_CELLS = ("positive", "negative", "reliability")
_SUMS = ("spread", "predicted", "brier")


def label_statistics(scores: Scores, rules: Evaluation) -> Statistics:
    """Return counts and sums of every label; prediction and target are (n, labels)."""
    probability, truth, _ = _arrays(scores)
    owner = owners(scores)
    rows = [LabelRows(p, t, owner) for p, t in zip(probability.T, truth.T, strict=True)]
    if rules.count_noise > 0:
        return _histograms(rows)
    known = [known_rows(row, rules.smallest_cell) for row in rows]
    told = _classes_told(known, rules.smallest_cell)
    each = [
        release_label(row, rules.smallest_cell, by_class=by_class)
        for row, by_class in zip(known, told, strict=True)
    ]
    return Statistics(
        patients=whole(scores, rules),
        cells={name: _stacked(each, name) for name in _CELLS},
        sums={name: _stacked(each, name) for name in _SUMS} | loss_sums(scores, rules),
    )


def row_of(value: float, yes: str, no: str) -> str:
    """Return the row of a table that a target of one label is counted in."""
    if np.isnan(value):
        return UNKNOWN
    return yes if value >= 0.5 else no


def _stacked(each: Sequence[LabelRelease], name: str) -> Float:
    return np.stack([release._asdict()[name] for release in each])


def _histograms(rows: Sequence[LabelRows]) -> Statistics:
    """Return one patient in one cell a label, for noise; no sums."""
    each = [
        noised_histogram.histogram_of(
            noised_histogram.by_patient(row.score, row.owner),
            noised_histogram.by_patient(row.truth, row.owner),
        )
        for row in rows
    ]
    return Statistics(patients=np.zeros(()), cells={"histogram": np.stack(each)}, sums={})


def _classes_told(rows: Sequence[LabelRows], smallest: int) -> list[bool]:
    """Return for each label whether its outcomes may be counted.

    Classes that exclude each other add up to the patients, so they are looked at together.
    """
    counts = np.array(
        [[patients_in(row.owner, row.truth == outcome) for row in rows] for outcome in (0, 1)],
        np.float64,
    )
    if len(rows) > 1 and _exclude_each_other(rows):
        return [bool(told) for told in releasable(counts[1], smallest)]
    return [bool(releasable(pair, smallest).all()) for pair in counts.T]


def _exclude_each_other(rows: Sequence[LabelRows]) -> bool:
    same_length = len({len(row.truth) for row in rows}) == 1
    return same_length and bool(np.all(sum(row.truth for row in rows) == 1))


def label_summary(
    statistics: Statistics, rules: Evaluation, names: Sequence[str]
) -> dict[str, Estimate]:
    """Return the metrics that merged statistics allow; the main one is the first."""
    if rules.count_noise > 0:
        told = [
            noised_histogram.metrics_of(cells, statistics.noise)
            for cells in statistics.cells["histogram"]
        ]
        return _by_metric(told, names)
    each = [_released_metrics(statistics, label, rules) for label in range(len(names))]
    return _by_metric(each, names) | {"loss": loss_estimate(statistics)}


def _released_metrics(statistics: Statistics, label: int, rules: Evaluation) -> dict[str, Estimate]:
    cells, sums = statistics.cells, statistics.sums
    positive, negative = (
        Ranges(cells[name][label][0], cells[name][label][1], sums["spread"][label][outcome])
        for outcome, name in ((1, "positive"), (0, "negative"))
    )
    cases, controls = float(positive.first.sum()), float(negative.first.sum())
    count, total, squared = sums["brier"][label]
    return {
        "auroc": merged_auroc(positive, negative, cases, controls),
        "average_precision": merged_average_precision(positive, negative),
        "sensitivity_at_specificity": merged_sensitivity(positive, negative, rules.specificity),
        "brier": mean_estimate(total, squared, count),
        "calibration_error": metrics.merged_calibration(
            cells["reliability"][label], sums["predicted"][label]
        ),
    }


def _by_metric(each: Sequence[Mapping[str, Estimate]], names: Sequence[str]) -> dict[str, Estimate]:
    """Return means over labels, then each label's AUROC where there are several."""
    found = {name: mean_of_labels([label[name] for label in each]) for name in each[0]}
    if len(names) == 1:
        return found
    areas = {f"auroc_{name}": label["auroc"] for name, label in zip(names, each, strict=True)}
    return {"macro_auroc": found.pop("auroc")} | areas | found


def label_metrics(
    scores: Scores, weights: Float, rules: Evaluation, names: Sequence[str]
) -> dict[str, Estimate]:
    """Return every metric from the scores, bootstrapped."""
    probability, truth, loss = _arrays(scores)
    main = "auroc" if len(names) == 1 else "macro_auroc"
    found = {main: bootstrapped(partial(_mean_of, auroc, probability, truth), weights)}
    if len(names) > 1:
        found |= {
            f"auroc_{name}": bootstrapped(
                partial(_mean_of, auroc, probability[:, [k]], truth[:, [k]]), weights
            )
            for k, name in enumerate(names)
        }
    found |= {
        name: bootstrapped(partial(_mean_of, metric, probability, truth), weights)
        for name, metric in _others(rules.specificity).items()
    }
    found["loss"] = bootstrapped(partial(weighted_mean, loss), weights)
    return found


def _others(specificity: float) -> dict[str, _Metric]:
    return {
        "average_precision": metrics.average_precision,
        "sensitivity_at_specificity": partial(metrics.sensitivity, specificity=specificity),
        "brier": metrics.brier,
        "calibration_error": metrics.calibration_error,
    }


def label_draws(scores: Scores, weights: Float) -> Float:
    """Return the mean AUROC over labels for each row of weights."""
    probability, truth, _ = _arrays(scores)
    return _mean_of(auroc, probability, truth, weights)


def _arrays(scores: Scores) -> tuple[Float, Float, Float]:
    prediction, target, loss = (
        part.double().numpy() for part in (scores.prediction, scores.target, scores.loss)
    )
    return prediction, target, loss


def _mean_of(metric: _Metric, probability: Float, truth: Float, weights: Float) -> Float:
    """Return the plain mean of a metric over the labels for which it can be had."""
    found = []
    for score, seen in zip(probability.T, truth.T, strict=True):
        known = ~np.isnan(seen)
        if known.any():
            found.append(metric(score[known], seen[known], weights[:, known]))
    held = np.stack(found) if found else np.full((1, len(weights)), np.nan)
    counted = (~np.isnan(held)).sum(axis=0)
    total = np.nansum(held, axis=0)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
