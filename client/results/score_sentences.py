"""Sentences that state a score, the same in every form of a result."""

from __future__ import annotations

from collections.abc import Iterator

from client.results.codes import RESEARCH
from client.results.equipment import ReportedScore
from client.results.regions import calibrations
from client.results.score import Score
from common.metrics.shown_probability import shown_share


def sentences(finding: ReportedScore) -> Iterator[str]:
    """Yield what a reader has to know of a result: of the score, and on what its lengths rest."""
    yield from statements(finding.score)
    yield from calibrations(finding.score.outlines, finding.source)


def statements(score: Score) -> Iterator[str]:
    """Yield what a reader has to know, the research mark first."""
    yield RESEARCH
    yield f"Model {score.model.name}, weights {score.model.weights[:12]}, {score.kind}."
    if score.abstained is not None:
        yield f"The model gives no answer: {score.abstained}"
    for quantity in score.quantities:
        yield f"{quantity.meaning}: {quantity.words}"
    if score.prediction_set is not None and score.coverage is not None:
        members = ", ".join(score.prediction_set) or "nothing"
        yield f"Prediction set that holds the truth {score.coverage:.0%} of the time: {members}"
    # Survival has no sets, calibrated or not; a calibration always says how usual an image is.
    if score.unlike_training is None and score.quantities:
        yield "Not calibrated at this hospital."
    if score.unlike_training is not None:
        yield (
            f"{shown_share(score.unlike_training, 1)} of the images used for calibration are less "
            "usual than this one."
        )
    if score.heatmap is not None:
        yield (
            f"Heatmap by {score.heatmap.method} for {score.heatmap.label}: where the network "
            "looked, not where a finding is."
        )
    if score.outlines is not None and not score.outlines.labels.any():
        yield f"Nothing outlined ({', '.join(score.outlines.structures)})."
