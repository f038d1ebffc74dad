"""Example images of test patients in the report; they never leave this machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from common.config.parts.units import after_number
from common.config.run_config import Images
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelMap,
    LabelProbabilities,
    SurvivalCurve,
)
from common.metrics.decisions.confusion import decided
from common.metrics.shown_probability import shown_probability
from common.tasks.prognosis import follow_up
from common.tasks.task import Scores
from simulations.comparison.compare import Comparison
from simulations.report.pictures import Picture, finished, panels_of, shown
from simulations.report.rows import main_arm, owners, rows

#: Images in all, so that the page stays small.
_IMAGES = 8
_TRUTH, _PREDICTED = "#00ff66", "#ff9500"


@dataclass(frozen=True, kw_only=True)
class _Example:
    site: str
    image: Tensor  # (channel, *spatial)
    scores: Scores  # one row


def examples(found: Comparison) -> Picture | None:
    """Draw test patients of different hospitals, first seed; None without images."""
    chosen = _chosen(found)
    if not chosen:
        return None
    figure, panels = panels_of(len(chosen), height=2.95)
    outlines = found.config.task.outlines
    for axes, example in zip(panels, chosen, strict=False):
        place = _slice(example, outlines=outlines)
        axes.imshow(_flat(example.image, place), cmap="gray")
        if outlines:
            _outline(axes, _at(example.scores.target[0], place), _TRUTH)
            _outline(axes, _at(example.scores.prediction[0], place), _PREDICTED)
        axes.set_title(f"{example.site}\n{words(found, example.scores)}", fontsize=8)
    caption = f"First seed, {shown(main_arm(found))}; as the network sees them."
    images = found.config.cohort.images
    if images is not None and images.channel_names:
        caption += f" Of its series, {images.channel_names[images.reference]} is shown."
    if outlines:
        caption += " Green: the outline that was given. Orange: the model's."
    if _spatial(found) == 3:
        caption += " One slice of each volume."
    return finished(figure, "examples", caption)


def _chosen(found: Comparison) -> list[_Example]:
    """Return the first test patients of each hospital whose image was kept."""
    arm, seed = main_arm(found), found.seeds[0]
    each = max(1, _IMAGES // len(found.cohorts))
    chosen = []
    for cohort in found.cohorts:
        people = owners(found, cohort, seed, 0)
        kept = [name for name in cohort.examples if name in people][:each]
        for name in kept:
            scores = rows(found.outcomes[arm, seed][0].test[cohort.name], [people.index(name)])
            image = _shown_channels(cohort.examples[name], found.config.cohort.images)
            chosen.append(_Example(site=cohort.name, image=image, scores=scores))
    return chosen[:_IMAGES]


def _shown_channels(image: Tensor, images: Images | None) -> Tensor:
    """Return an image's colours or grey; of several series, the one that gives the grid."""
    if images is None or not images.channel_names:
        return image
    return image[images.reference : images.reference + 1]


def _spatial(found: Comparison) -> int:
    images = found.config.cohort.images
    return 2 if images is None else images.dimensions


def _slice(example: _Example, *, outlines: bool) -> int | None:
    """Return the slice of a volume to show: most of the given outline, else the middle."""
    if example.image.dim() < 4:
        return None
    if outlines:
        area = (example.scores.target[0] > 0).flatten(1).sum(1)
        if int(area.max()) > 0:
            return int(area.argmax())
    return example.image.shape[1] // 2


def _at(volume: Tensor, place: int | None) -> np.ndarray:
    return np.asarray((volume if place is None else volume[place]).numpy())


def _flat(image: Tensor, place: int | None) -> np.ndarray:
    """Return (rows, columns) or (rows, columns, 3), stretched to 0 to 1."""
    picture = image if place is None else image[:, place]
    low, high = float(picture.min()), float(picture.max())
    scaled = (picture.float() - low) / max(high - low, 1e-6)
    found = scaled[0] if len(scaled) != 3 else scaled.movedim(0, -1)
    return np.asarray(found.numpy())


def _outline(axes, labelled: np.ndarray, colour: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    for structure in range(1, int(labelled.max()) + 1):
        inside = (labelled == structure).astype(float)
        if 0 < inside.sum() < inside.size:
            axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.2)


# --- in words ----------------------------------------------------------------------------


def words(found: Comparison, scores: Scores) -> str:
    """Return what was seen and what was predicted, short enough for a title."""
    names = found.config.task.labels
    prediction, target = scores.prediction[0], scores.target[0]
    match found.config.task.predicts:
        case LabelMap():
            return f"Dice {_dice(prediction, target)}"
        case SurvivalCurve(times=times, unit=unit):
            return _over_time(("event",), "none", times, unit, prediction, target)
        case IncidenceCurves(causes=causes, times=times, unit=unit):
            return _over_time(causes, causes[0], times, unit, prediction, target)
        case BoundedNumber(unit=unit):
            beside = after_number(unit)
            return (
                f"{names[0]}: {float(target[0]):.4g}{beside}\n"
                f"predicted {float(prediction[0]):.4g}{beside}"
            )
        case LabelProbabilities(exclusive=True, ordered=ordered):
            top = int(decided(prediction[None].double().numpy(), ordered=ordered)[0])
            truth = names[int(target.argmax())]
            sure = shown_probability(float(prediction[top]), 2)
            return f"is {truth}\npredicted {names[top]} ({sure})"
        case LabelProbabilities():
            return _several(names, prediction, target)


def _over_time(
    ends: tuple[str, ...],
    what: str,
    times: tuple[float, ...],
    unit: str,
    prediction: Tensor,
    target: Tensor,
) -> str:
    """Return how long a patient was followed, to what, and the first curve in its middle."""
    place, seen = len(times) // 2, follow_up(target)
    end = ("followed", *ends)[int(seen.event)]
    return (
        f"{end} to {float(seen.time):g} {unit}\n"
        f"P({what} by {times[place]:g}): {shown_probability(float(prediction[place]), 2)}"
    )


def _several(names: tuple[str, ...], prediction: Tensor, target: Tensor) -> str:
    """Return one label, or up to three, the most probable first."""
    if len(names) == 1:
        answer = "yes" if target[0] == 1 else "no"
        return f"{names[0]}: {answer}\npredicted {shown_probability(float(prediction[0]), 2)}"
    best = prediction.argsort(descending=True)[:3].tolist()
    seen = {0.0: "no", 1.0: "yes"}
    return "\n".join(
        f"{names[k]}: {seen.get(float(target[k]), 'unknown')}, "
        f"predicted {shown_probability(float(prediction[k]), 2)}"
        for k in best
    )


def _dice(prediction: Tensor, target: Tensor) -> str:
    both = float(((prediction > 0) & (target > 0)).sum())
    sizes = float((prediction > 0).sum() + (target > 0).sum())
    return f"{2 * both / sizes:.2f}" if sizes else "not defined (nothing outlined)"
