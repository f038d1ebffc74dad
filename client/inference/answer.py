"""From a network's output to an answer: values, sets, and when there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.inference.calibration.out_of_distribution import distances, embedded, share_as_unlike
from client.inference.calibration.site_calibration import SiteCalibration, judge
from client.inference.grid import by_place, source_labels
from client.inference.study_reading import Item
from client.radiomics.measured import MeasuredStructure, each_measured
from client.results.score import RATIO, ModelName, Outlines, Quantity, Score
from common.config.parts.coded_concept import CodedConcept
from common.config.run_config import RunConfig
from common.config.tasks.forms import BoundedNumber, LabelMap, LabelProbabilities
from common.metrics.shown_probability import shown_share
from common.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a network said of items that belong together: an image, a series, or a study."""

    model: ModelName
    config: RunConfig
    items: tuple[Item, ...]  # one for outlines, or the frames of one file
    output: Tensor  # (items, labels[, *size])
    sources: tuple[Path, ...]  # in case the items have no images
    measured: tuple[Item, ...]  # scored as one when the model was measured: these, or the study's
    together: Tensor  # (labels,): the mean of the outputs of those; unused for outlines


def answer_of(answered: Answered, calibration: SiteCalibration | None, *, abstain: bool) -> Score:
    """Return the score of items that belong together, without explanations."""
    config, items = answered.config, answered.items
    share = _unlike(answered, calibration)
    reasons: list[str] = []
    if calibration is not None and share is not None and share <= calibration.flagged:
        reasons.append(
            f"unlike the images that the model was trained on: {shown_share(share, 1)} of this "
            "site's own are as unlike"
        )
    quantities: tuple[Quantity, ...] = ()
    outlines, chosen = None, None
    if isinstance(config.task.predicts, LabelMap):
        outlines = _outlines(answered, config.task.predicts)
    else:
        quantities, sets = _quantities(answered, calibration)
        chosen = None if sets is None else tuple(name for found in sets for name in found)
        if sets:
            reasons += _undecided(config.task.alternatives, sets)
    sources = _sources(items, answered.sources)
    return Score(
        model=answered.model,
        kind=config.task.kind,
        sources=sources,
        beside=_beside(answered, sources),
        quantities=quantities,
        prediction_set=chosen,
        coverage=None if calibration is None or chosen is None else calibration.coverage,
        abstained="; ".join(reasons) if reasons and abstain else None,
        unlike_training=share,
        outlines=outlines,
        codes=_codes(answered),
    )


def _codes(answered: Answered) -> Mapping[str, CodedConcept]:
    form = answered.config.task.predicts
    return form.codes if isinstance(form, LabelProbabilities) else {}


def _sources(items: Sequence[Item], otherwise: tuple[Path, ...]) -> tuple[Path, ...]:
    found = dict.fromkeys(s for item in items if item.place for s in item.place.sources)
    found |= dict.fromkeys(s for item in items if item.tile for s in item.tile.view.files)
    return tuple(found) or otherwise


def _beside(answered: Answered, sources: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return what else was read: other series and times, and images of the same answer."""
    together = dict.fromkeys(_sources(answered.measured, ()))
    together |= dict.fromkeys(path for item in answered.measured for path in item.beside)
    held = set(sources)
    return tuple(path for path in together if path not in held)


def _unlike(answered: Answered, calibration: SiteCalibration | None) -> float | None:
    """Return how usual the least usual of the items is; None without a calibration."""
    if calibration is None:
        return None
    image = torch.stack([item.image for item in answered.measured])
    table = torch.stack([item.table for item in answered.measured])
    found = embedded(image, table, answered.config)
    distance = float(distances(calibration.reference, found).max())
    return share_as_unlike(calibration.distances, distance)


def _undecided(asked: Sequence[tuple[str, ...]], sets: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield why there is no answer, where no question has one."""
    if any(len(found) == 1 for found in sets):
        return
    for classes, found in zip(asked, sets, strict=True):
        if found:
            yield f"it may be {' or '.join(found)}"
        else:
            yield f"it is like none of this site's patients with {' or '.join(classes)}"


def _quantities(
    answered: Answered, calibration: SiteCalibration | None
) -> tuple[tuple[Quantity, ...], tuple[tuple[str, ...], ...] | None]:
    """Return the values of what was measured as one, then of each image where there are several."""
    config, task = answered.config, task_of(answered.config.task)
    # The mean of outputs and then the last function: as the model was measured.
    raw = task.predict(answered.together[None].double())[0].numpy()
    names, wording, form = config.task.labels, config.task.wordings, config.task.predicts
    number = form if isinstance(form, BoundedNumber) else None
    findings = _codes(answered)
    unit = RATIO if number is None else number.unit
    judged = None if calibration is None else judge(calibration, answered.together, config)
    found = [
        Quantity(
            label=name,
            meaning=words + _of_all(answered),
            raw=float(raw[k]),
            value=float(raw[k] if judged is None else judged.value[k]),
            low=None if judged is None else float(judged.low[k]),
            high=None if judged is None else float(judged.high[k]),
            unit=unit,
            promise=None if number is None or calibration is None else calibration.coverage,
            code=None if number is None else number.code,
            finding=findings.get(name),
        )
        for k, (name, words) in enumerate(zip(names, wording, strict=True))
    ]
    if len(answered.measured) > 1 and answered.items[0].tile is None:
        each = task.predict(answered.output.double()).numpy()
        found += [replace(one, unit=unit) for one in _by_image(each, names, wording)]
    return tuple(found), None if judged is None or not judged.sets else judged.sets


def _of_all(answered: Answered) -> str:
    images = len(answered.measured)
    kind = "images" if answered.items[0].tile is None else "tiles"
    return f", {images} {kind} of the study together" if images > 1 else ""


def _by_image(each: np.ndarray, names: Sequence[str], wording: Sequence[str]) -> Iterator[Quantity]:
    """Yield each image's own values, as the network gives them: calibrated are patients."""
    for number, values in enumerate(each, 1):
        for name, words, value in zip(names, wording, values, strict=True):
            yield Quantity(
                label=name,
                meaning=f"{words}, image {number} of {len(each)} alone",
                value=float(value),
                raw=float(value),
            )


def _outlines(answered: Answered, form: LabelMap) -> Outlines:
    """Return the label map of a series, or of all frames of one file."""
    rules = answered.config.cohort.images
    parts = [
        source_labels(output, item.place, rules)
        for item, output in zip(answered.items, answered.output, strict=True)
        if item.place is not None and rules is not None
    ]
    # Frames of one file are outlined one by one; each map holds its own frame and is 0 elsewhere.
    labels = np.maximum.reduce(parts).astype(np.uint8)
    names = tuple(form.structures)
    measured = _measured(labels, names, answered.items[0]) if len(answered.items) == 1 else ()
    return Outlines(labels=labels, structures=names, codes=form.codes, measured=measured)


def _measured(
    labels: NDArray[np.uint8], names: Sequence[str], item: Item
) -> tuple[MeasuredStructure, ...]:
    """Return what each structure measures in a volume; nothing of other images."""
    if item.volume is None or item.place is None:
        return ()
    drawn = by_place(labels, item.place)
    return each_measured({name: drawn == k for k, name in enumerate(names, 1)}, item.volume)
