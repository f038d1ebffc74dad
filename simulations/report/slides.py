"""Whole slides of test patients in the report, with what each tile counts for the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort.site_cohort import SiteCohort
from client.slides.tiles import SlideView
from common.data.weights import Weights, load_into
from common.models.bags import AttentionPool, BagClassifier
from common.models.run_network import network_of
from common.tasks.task import Scores
from simulations.comparison.compare import Comparison
from simulations.report.bundle_output import config_of
from simulations.report.examples import words
from simulations.report.pictures import Picture, finished, panels_of, shown
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
    if found.shared_model is None or not any(cohort.views for cohort in found.cohorts):
        return None
    arm, seed, weights = found.shared_model
    network = _attending(network_of(config_of(found, arm), seed), weights)
    if network is None:
        return None
    each = max(1, _SLIDES // len(found.cohorts))
    chosen: list[_Shown] = []
    for cohort in found.cohorts:
        scores = found.outcomes[arm, seed][0].test[cohort.name]
        chosen += _of_cohort(cohort, owners(found, cohort, seed, 0), scores, network, each)
    chosen = chosen[:_SLIDES]
    if not chosen:
        return None
    figure, panels = panels_of(len(chosen), height=3.15)
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


def _attending(network: nn.Module, weights: Weights) -> BagClassifier | None:
    """Return the part of a network that weighs tiles, with these weights; None without one."""
    load_into(network, weights)
    for part in network.eval().modules():
        if isinstance(part, BagClassifier) and isinstance(part.pool, AttentionPool):
            return part
    return None


def _of_cohort(
    cohort: SiteCohort, people: list[str], scores: Scores, network: BagClassifier, most: int
) -> list[_Shown]:
    """Return some test patients' slides; those with the outcome first, as more is to be seen."""
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
