"""Whole slides of test patients in the report, with what each tile counts for the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.cohort.site_cohort import SiteCohort
from client.slides.tiles import SlideView
from common.data.weights import load_into
from common.models.bags import AttentionPool, BagClassifier
from common.models.run_network import network_of
from common.tasks.task import Scores
from simulations.comparison.compare import Comparison
from simulations.report.bundle_output import config_of
from simulations.report.examples import words
from simulations.report.pictures import Picture, finished, new_figure, shown
from simulations.report.rows import owners, rows

_SLIDES = 8


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """One slide, and what its tiles count for."""

    site: str
    view: SlideView
    counts: Tensor  # (tiles,) 0 to 1, the most 1
    scores: Scores  # one row


def slides(found: Comparison) -> Picture | None:
    """Draw slides of test patients with their tiles' attention, first seed; None without."""
    network = _attending(found)
    if network is None or found.shared_model is None:
        return None
    arm, seed, _ = found.shared_model
    each = max(1, _SLIDES // len(found.cohorts))
    chosen = [one for cohort in found.cohorts for one in _of_cohort(found, cohort, network, each)][
        :_SLIDES
    ]
    if not chosen:
        return None
    columns = min(4, len(chosen))
    lines = math.ceil(len(chosen) / columns)
    figure = new_figure(2.5 * columns, 3.15 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, one in zip(panels, chosen, strict=False):
        axes.imshow(one.view.picture)
        counts = _map(one)
        # What counts little stays as it looks.
        strength = np.where(counts > 0, 0.15 + 0.45 * counts, 0.0)
        axes.imshow(counts, cmap="turbo", vmin=0, vmax=1, alpha=strength)
        axes.set_title(f"{one.site}\n{words(found, one.scores)}", fontsize=8)
    caption = (
        f"Seed {seed}, {shown(arm)}: how much each tile counts in its slide's answer, from blue to "
        "red (the most of that slide). What has no colour is no tile."
    )
    return finished(figure, "slides", caption)


def _attending(found: Comparison) -> BagClassifier | None:
    """Return the shared model's network of the first seed and fold, where it weighs tiles."""
    if found.shared_model is None or not any(cohort.views for cohort in found.cohorts):
        return None
    arm, seed, weights = found.shared_model
    network = network_of(config_of(found, arm), seed)
    load_into(network, weights)
    for part in network.eval().modules():
        if isinstance(part, BagClassifier) and isinstance(part.pool, AttentionPool):
            return part
    return None


def _of_cohort(
    found: Comparison, cohort: SiteCohort, network: BagClassifier, most: int
) -> list[_Shown]:
    """Return some test patients' slides; those with the outcome first, as more is to be seen."""
    if found.shared_model is None:
        return []
    arm, seed, _ = found.shared_model
    people = owners(found, cohort, seed, 0)
    scores = found.outcomes[arm, seed][0].test[cohort.name]
    ordered = sorted(range(len(people)), key=lambda row: -float(scores.target[row].flatten()[0]))
    places = dict(zip(cohort.items.pseudonyms, range(len(cohort.items)), strict=True))
    chosen = []
    for row in ordered[:most]:
        items = cohort.items.items_of(places[people[row]])
        source = cohort.sources[int(items[0])]
        own = [n for n, item in enumerate(items.tolist()) if cohort.sources[item] == source]
        with torch.no_grad():
            share = network.attention(cohort.items.image[items])[own]
        chosen.append(
            _Shown(
                site=cohort.name,
                view=cohort.views[source],
                counts=share / share.max(),
                scores=rows(scores, [row]),
            )
        )
    return chosen


def _map(one: _Shown) -> NDArray[np.float32]:
    """Return what counts by pixel of the small picture; 0 where no tile is."""
    rows_, columns = one.view.picture.shape[:2]
    found = np.zeros((rows_, columns), np.float32)
    for box, count in zip(one.view.boxes, one.counts.tolist(), strict=True):
        top, left, bottom, right = np.rint(box * [rows_, columns, rows_, columns]).astype(int)
        found[top : max(bottom, top + 1), left : max(right, left + 1)] = max(count, 1e-3)
    return found
