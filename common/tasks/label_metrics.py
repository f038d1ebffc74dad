"""Statistics and metrics by label, for tasks that predict probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from common.config.parts.ranges import UNKNOWN
from common.config.privacy import Threshold
from common.config.run_config import Evaluation
from common.metrics import classification as metrics
from common.metrics import noised_histogram
from common.metrics.auroc_interval import auroc, merged_auroc
from common.metrics.decisions.confusion import (
    Decisions,
    counted_cells,
    decided,
    exact_metrics,
    matrices_in,
    matrices_of,
    matrix_metrics,
    merged_metrics,
    told,
)
from common.metrics.decisions.threshold import METRICS as AT_THRESHOLD
from common.metrics.decisions.threshold import counts_at, of_histogram, of_ranges, ranges_in
from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    bootstrapped,
    mean_estimate,
    mean_of_labels,
    weighted_mean,
)
from common.metrics.label_release import LabelRelease, LabelRows, known_rows, release_label
from common.metrics.score_ranges import merged_average_precision, merged_sensitivity
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
    owner, smallest = owners(scores), rules.smallest_cell
    decisions = _decisions(scores, rules)
    if rules.count_noise > 0:
        return _histograms(probability, truth, owner, matrix=decisions is not None)
    labels = probability.shape[1]
    held = None if decisions is None else told(decisions, labels, smallest)
    group = None if held is None else held.group
    rows = [LabelRows(p, t, owner, group) for p, t in zip(probability.T, truth.T, strict=True)]
    known = [known_rows(row, smallest) for row in rows]
    each = [
        release_label(row, smallest, by_class=by_class)
        for row, by_class in zip(known, _classes_told(known, smallest), strict=True)
    ]
    cells = {name: _stacked(each, name) for name in _CELLS}
    sums = {name: _stacked(each, name) for name in _SUMS} | loss_sums(scores, rules)
    if decisions is not None and held is not None:
        matrices = matrices_of(decisions, held, labels)
        cells |= {"least": matrices.least, "most": matrices.most}
        sums |= {"middle": matrices.middle}
    return Statistics(patients=whole(scores, rules), cells=cells, sums=sums)


def _decisions(scores: Scores, rules: Evaluation) -> Decisions | None:
    """Return true and predicted class where a run asks for their matrix."""
    if rules.threshold != "most_probable":
        return None
    probability, truth, _ = _arrays(scores)
    return Decisions(truth.argmax(axis=1), decided(probability, ordered=False), owners(scores))


def row_of(value: float, yes: str, no: str) -> str:
    """Return the row of a table that a target of one label is counted in."""
    if np.isnan(value):
        return UNKNOWN
    return yes if value >= 0.5 else no


def _stacked(each: Sequence[LabelRelease], name: str) -> Float:
    return np.stack([release._asdict()[name] for release in each])


def _histograms(probability: Float, truth: Float, owner: Owners, *, matrix: bool) -> Statistics:
    """Return one patient in one cell a label, and of the matrix if any, for noise; no sums."""
    scores, seen = (
        [noised_histogram.by_patient(column, owner) for column in part.T]
        for part in (probability, truth)
    )
    each = [noised_histogram.histogram_of(s, t) for s, t in zip(scores, seen, strict=True)]
    cells = {"histogram": np.stack(each)}
    if matrix:
        known = np.nan_to_num(np.stack(scores, axis=1), nan=0.0)
        predicted = decided(known, ordered=False)
        patients = Decisions(np.stack(seen, axis=1).argmax(axis=1), predicted, np.unique(owner))
        cells["matrix"] = counted_cells(patients, probability.shape[1])[None]
    return Statistics(patients=np.zeros(()), cells=cells, sums={})


def _classes_told(rows: Sequence[LabelRows], smallest: int) -> list[bool]:
    """Return for each label whether its outcomes may be counted.

    Classes that exclude each other add up to the patients, so they are looked at together.
    """
    counts = np.array(
        [[patients_in(row.owner, row.truth == outcome) for row in rows] for outcome in (0, 1)],
        np.float64,
    )
    if rows[0].group is not None:
        group = rows[0].group
        return [bool((group[row.truth == 1] >= 0).all() and (group >= 0).any()) for row in rows]
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
        noised = [
            noised_histogram.metrics_of(cells, statistics.noise)
            | _noised_at(cells, statistics.noise, rules.threshold)
            for cells in statistics.cells["histogram"]
        ]
        found = _by_metric(noised, names)
        if "matrix" in statistics.cells:
            cells = statistics.cells["matrix"][0]
            found |= matrix_metrics(cells, statistics.noise, ordered=False)
        return found
    each = [_released_metrics(statistics, label, rules) for label in range(len(names))]
    found = _by_metric(each, names)
    if "middle" in statistics.sums:
        found |= merged_metrics(matrices_in(statistics), ordered=False)
    return found | {"loss": loss_estimate(statistics)}


def _noised_at(cells: Float, noise: float, threshold: Threshold | None) -> dict[str, Estimate]:
    return of_histogram(cells, noise, threshold) if isinstance(threshold, float) else {}


def _released_metrics(statistics: Statistics, label: int, rules: Evaluation) -> dict[str, Estimate]:
    cells, sums = statistics.cells, statistics.sums
    negative, positive = ranges_in(statistics, label)
    threshold = rules.threshold
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
    } | (of_ranges(negative, positive, threshold) if isinstance(threshold, float) else {})


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
        for name, metric in _others(rules).items()
    }
    decisions = _decisions(scores, rules)
    if decisions is not None:
        found |= exact_metrics(decisions, len(names), weights, ordered=False)
    found["loss"] = bootstrapped(partial(weighted_mean, loss), weights)
    return found


def _others(rules: Evaluation) -> dict[str, _Metric]:
    found: dict[str, _Metric] = {
        "average_precision": metrics.average_precision,
        "sensitivity_at_specificity": partial(metrics.sensitivity, specificity=rules.specificity),
        "brier": metrics.brier,
        "calibration_error": metrics.calibration_error,
    }
    if isinstance(rules.threshold, float):
        found |= {name: partial(_at, name, rules.threshold) for name in AT_THRESHOLD}
    return found


def _at(name: str, threshold: float, score: Float, truth: Float, weights: Float) -> Float:
    return AT_THRESHOLD[name](counts_at(score, truth, weights, threshold))


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
