"""Intervals of the mean over the seeds, in the report's headline.

One bootstrap by patient for all seeds: who is drawn is drawn in each seed that tests them. So an
interval is for other patients and the models as they were trained; the chance of training itself
is what the spread over seeds shows.

Public: intervals, Intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from common.metrics.intervals import Float, bootstrap_weights, ratio
from common.tasks import task_of
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import concatenated
from simulations.report.rows import owners

#: Lower and upper end by arm.
Intervals = Mapping[Arm, tuple[float, float]]
#: By seed and hospital: the pseudonym behind each row of the test scores.
_Rows = Mapping[tuple[int, str], Sequence[str]]


def intervals(found: Comparison) -> Intervals:
    """Return each arm's 95 % interval of the mean over seeds; nan where it is not known."""
    folds = range(found.config.cohort.split.folds or 1)
    rows = {
        (seed, c.name): [who for fold in folds for who in owners(found, c, seed, fold)]
        for seed in found.seeds
        for c in found.cohorts
    }
    return {arm: _ends(found, arm, rows) for arm in found.arms}


def _ends(found: Comparison, arm: Arm, rows: _Rows) -> tuple[float, float]:
    names = [c.name for c in found.cohorts]
    # Where the headline is a mean of hospitals, each is drawn for itself.
    groups = [[name] for name in names] if found.is_mean_of_sites(arm) else [names]
    drawn = [_drawn(found, arm, group, rows) for group in groups]
    by_seed = []
    for each in zip(*drawn, strict=True):
        # As in the headline, a hospital without both outcomes is not in the mean.
        held = [values for values in each if not np.isnan(values).all()]
        by_seed += [np.mean(held, axis=0)] if held else []
    if not by_seed:
        return math.nan, math.nan
    known = ~np.isnan(by_seed)
    values = ratio(np.where(known, by_seed, 0.0).sum(axis=0), known.sum(axis=0))
    told = values[~np.isnan(values)]
    if not len(told):
        return math.nan, math.nan
    low, high = np.quantile(told, [0.025, 0.975])
    return float(low), float(high)


def _drawn(found: Comparison, arm: Arm, names: Sequence[str], rows: _Rows) -> list[Float]:
    """Return the metric of each draw, by seed, on the test patients of these hospitals."""
    task, rules = task_of(found.config.task), found.config.evaluation
    tested = [[(name, who) for name in names for who in rows[seed, name]] for seed in found.seeds]
    people = {who: n for n, who in enumerate(dict.fromkeys(w for seed in tested for w in seed))}
    unknown = np.full(rules.bootstrap, np.nan)
    if not people:
        return [unknown] * len(tested)
    weights = bootstrap_weights(len(people), rules.bootstrap, found.seeds[0])
    drawn = []
    for seed, whose in zip(found.seeds, tested, strict=True):
        scores = concatenated([found.site_scores(arm, seed, name) for name in names])
        # A hospital that could not train alone has no scores.
        whole = len(scores.loss) == len(whose) > 0
        place = [people[who] for who in whose]
        drawn.append(task.draws(scores, weights[:, place], rules) if whole else unknown)
    return drawn
