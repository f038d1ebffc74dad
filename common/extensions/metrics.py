"""Metrics of extensions: functions of merged, released counts; no score and no patient.

What they are computed from has left the sites already, checked for small cells or noised and
charged, so that they cost no privacy, whatever they do.

Public: foreign_metrics, check_metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from pydantic import BaseModel

from common.config.parts.extension import ExtensionUse
from common.config.run_config import RunConfig
from common.extensions.contract import LabelCounts, MetricExtension
from common.extensions.foreign_code import refusing
from common.extensions.loading import checked_arguments, load
from common.metrics import noised_histogram, score_ranges
from common.metrics.intervals import Estimate, Float, mean_of_labels, unknown
from common.metrics.noised import Scale, bounded_estimate
from common.metrics.statistics import Statistics
from common.platform.errors import ExtensionRefused

_Compute = Callable[[LabelCounts], Float]
_Ready = tuple[str, _Compute, Scale]


def foreign_metrics(config: RunConfig, statistics: Statistics) -> dict[str, Estimate]:
    """Return every metric of the run's extensions, of merged statistics, by DISTRIBUTION/NAME."""
    return {
        name: mean_of_labels([_told(compute, scale, *label) for label in _labels(statistics)])
        for name, compute, scale in _ready(config)
    }


def check_metrics(config: RunConfig) -> None:
    """Refuse a metric that does not keep the contract: ExtensionRefused."""
    _ready(config)


def _ready(config: RunConfig) -> list[_Ready]:
    found: list[_Ready] = []
    for use in config.evaluation.metrics:
        kind: MetricExtension[BaseModel] = load(
            config.extensions, "metrics", use.name, MetricExtension
        )
        arguments = checked_arguments(kind.arguments, use, "evaluation.metrics")
        scale = Scale(kind.lowest, kind.highest)
        if not kind.lowest < kind.highest:
            message = f"{use.name}: lowest is {kind.lowest:g}, expected below {kind.highest:g}."
            raise ExtensionRefused(message)
        compute = partial(_checked, use, partial(kind.compute, arguments), scale)
        _try(use, compute)
        found.append((use.name, compute, scale))
    return found


def _checked(use: ExtensionUse, compute: _Compute, scale: Scale, counts: LabelCounts) -> Float:
    """Return one number a draw, of an extension that sees copies; ExtensionRefused otherwise."""
    seen = LabelCounts(
        edges=counts.edges.copy(), negative=counts.negative.copy(), positive=counts.positive.copy()
    )
    with refusing(f"{use.name} fails"), np.errstate(all="ignore"):
        found = np.asarray(compute(seen), np.float64)
    if found.shape != (len(counts.negative),):
        message = f"{use.name} gives {found.shape}, expected {(len(counts.negative),)}."
        raise ExtensionRefused(message)
    known = found[~np.isnan(found)]
    if ((known < scale.lowest) | (known > scale.highest)).any():
        odd = known[(known < scale.lowest) | (known > scale.highest)][0]
        message = f"{use.name} gives {odd:g}, expected {scale.lowest:g} to {scale.highest:g}."
        raise ExtensionRefused(message)
    return found


def _try(use: ExtensionUse, compute: _Compute) -> None:
    """Refuse a metric whose number of one row follows the others, or what it saw before."""
    generator = np.random.default_rng(0)
    edges = np.linspace(0, 1, 9)
    # Of nobody, of one outcome alone, and of broken numbers, as noise leaves them.
    negative, positive = generator.uniform(0, 9, (2, 5, 8))
    negative[0] = positive[0] = positive[1] = negative[2] = 0.0
    together = compute(LabelCounts(edges=edges, negative=negative, positive=positive))
    for row, expected in enumerate(together):
        counts = LabelCounts(edges=edges, negative=negative[[row]], positive=positive[[row]])
        (alone,) = compute(counts)
        if not np.isclose(alone, expected, rtol=1e-9, atol=1e-12, equal_nan=True):
            message = (
                f"{use.name} gives {alone:g} for counts that it gave {expected:g} for beside "
                "others: each row alone gives its number. Tell its author."
            )
            raise ExtensionRefused(message)


def _labels(statistics: Statistics) -> Sequence[tuple[Float, Float, Float, float]]:
    """Return edges, counts without and with the outcome, and noise, of each label."""
    if "histogram" in statistics.cells:
        held = statistics.cells["histogram"]
        size = noised_histogram.BINS
        return [
            (noised_histogram.EDGES, h[:size], h[size : 2 * size], statistics.noise) for h in held
        ]
    return [(score_ranges.EDGES, spread[0], spread[1], 0.0) for spread in statistics.sums["spread"]]


def _told(
    compute: _Compute, scale: Scale, edges: Float, negative: Float, positive: Float, noise: float
) -> Estimate:
    def value(without: Float, with_it: Float) -> Float:
        return compute(LabelCounts(edges=edges, negative=without, positive=with_it))

    try:
        return bounded_estimate((negative, positive), noise, value, scale)
    except ExtensionRefused as refused:  # on counts unlike those that it was tried on
        return unknown(round(float(max(negative.sum() + positive.sum(), 0))), str(refused))
