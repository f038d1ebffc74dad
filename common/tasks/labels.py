"""What tasks with probabilities share: statistics and metrics by label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from common.config import Evaluation
from common.metrics import Estimate, Statistics
from common.metrics import labels as metrics
from common.metrics.estimate import Float, bootstrapped, unknown
from common.tasks.task import Scores


def label_statistics(scores: Scores, rules: Evaluation) -> Statistics:
    """Return counts and sums of every label; prediction and target are (n, labels)."""
    probability, truth, loss = _arrays(scores)
    smallest = rules.smallest_cell
    columns = list(zip(probability.T, truth.T, strict=True))
    cells = [metrics.label_cells(p, t, smallest) for p, t in columns]
    sums = [metrics.label_sums(p, t, smallest) for p, t in columns]
    return Statistics(
        patients=np.array(float(len(loss))),
        cells={name: np.stack([c[name] for c in cells]) for name in cells[0]},
        sums={name: np.stack([s[name] for s in sums]) for name in sums[0]}
        | {"loss": np.array(loss.sum())},
    )


def label_summary(
    statistics: Statistics, rules: Evaluation, names: Sequence[str]
) -> dict[str, Estimate]:
    """Return the metrics that merged statistics allow; the main one is the first."""
    cells, sums = statistics.cells, statistics.sums
    areas = [
        metrics.merged_auroc(p, n)
        for p, n in zip(cells["positive"], cells["negative"], strict=True)
    ]
    found = {_main(names): _macro(areas)}
    if len(names) > 1:
        found |= {f"auroc_{name}": area for name, area in zip(names, areas, strict=True)}
    briers = [
        metrics.mean_estimate(*parts)
        for parts in zip(sums["brier"], sums["brier_squared"], sums["known"], strict=True)
    ]
    found["brier"] = _macro(briers)
    found["calibration_error"] = _macro([
        metrics.merged_calibration(c, p, s, rules.smallest_cell)
        for c, p, s in zip(cells["reliability"], sums["predicted"], sums["seen"], strict=True)
    ])  # fmt: skip
    return found


def label_metrics(
    scores: Scores, weights: Float, rules: Evaluation, names: Sequence[str]
) -> dict[str, Estimate]:
    """Return every metric from the scores, bootstrapped."""
    probability, truth, _ = _arrays(scores)
    found = {_main(names): bootstrapped(lambda w: _mean_auroc(probability, truth, w), weights)}
    for column, name in enumerate(names):
        known = ~np.isnan(truth[:, column])
        score, seen, drawn = probability[known, column], truth[known, column], weights[:, known]
        end = "" if len(names) == 1 else f"_{name}"
        if len(names) > 1:
            found[f"auroc{end}"] = bootstrapped(partial(metrics.auroc, score, seen), drawn)
        found[f"average_precision{end}"] = bootstrapped(
            partial(metrics.average_precision, score, seen), drawn
        )
        found[f"sensitivity_at_specificity{end}"] = bootstrapped(
            partial(_sensitivity, score, seen, rules.specificity), drawn
        )
        found[f"brier{end}"] = bootstrapped(partial(metrics.brier, score, seen), drawn)
        found[f"calibration_error{end}"] = bootstrapped(
            partial(metrics.calibration_error, score, seen), drawn
        )
    return found


def label_draws(scores: Scores, weights: Float) -> Float:
    """Return the mean AUROC over labels for each row of weights."""
    probability, truth, _ = _arrays(scores)
    return _mean_auroc(probability, truth, weights)


def _sensitivity(score: Float, truth: Float, specificity: float, weights: Float) -> Float:
    return metrics.sensitivity(score, truth, weights, specificity)


def _arrays(scores: Scores) -> tuple[Float, Float, Float]:
    prediction, target, loss = (part.double().numpy() for part in scores)
    return prediction, target, loss


def _main(names: Sequence[str]) -> str:
    return "auroc" if len(names) == 1 else "macro_auroc"


def _mean_auroc(probability: Float, truth: Float, weights: Float) -> Float:
    """Return the plain mean of AUROC over the labels that have both outcomes."""
    areas = []
    for score, seen in zip(probability.T, truth.T, strict=True):
        known = ~np.isnan(seen)
        if known.any():
            areas.append(metrics.auroc(score[known], seen[known], weights[:, known]))
    held = np.stack(areas) if areas else np.full((1, len(weights)), np.nan)
    counted = (~np.isnan(held)).sum(axis=0)
    total = np.nansum(held, axis=0)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def _macro(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates; the interval is the mean of theirs, which is wider than due."""
    held = [part for part in parts if not np.isnan(part.value)]
    if not held:
        return unknown(max((part.patients for part in parts), default=0))
    return Estimate(
        value=float(np.mean([p.value for p in held])),
        low=float(np.mean([p.low for p in held])),
        high=float(np.mean([p.high for p in held])),
        patients=max(p.patients for p in held),
        bound=float(np.mean([p.bound for p in held])),
    )
