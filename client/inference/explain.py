"""Explanations of an answer: a heatmap for images, attributions for clinical columns.

Public: Explained, explained, heatmap_of, attributions_of.

Grad-CAM (Selvaraju et al. 2017) at the last maps that still have places, each place weighted by its
own gradient (HiResCAM, Draelos and Carin 2020): under a mean over places that is the same, under a
maximum the plain one points elsewhere. Where a network has no such maps, as a transformer,
occlusion (Zeiler and Fergus 2014). The brightest place is as bright as the
answer is probable; of a number, it is what raises it most.
Columns: integrated gradients (Sundararajan et al. 2017) from a patient of whom
the same is known and all of it is usual: numbers at the configuration's centre, categories evenly
shared. So a column that is missing gets 0, all attributions add up to what the values changed, and
that something was measured at all is not counted as its effect. Neither says that the model is
right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.inference.answer import Answered
from client.inference.grid import strongest_plane
from client.inference.study_reading import Item
from client.results.score import Attribution, Heatmap
from common.bundle.onnx import Deployed
from common.config.run_config import RunConfig, Table
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelMap,
    LabelProbabilities,
    SurvivalCurve,
)
from common.models.bags import AttentionPool, BagClassifier, pools
from common.models.fusion import Classifier
from common.tasks import task_of

#: Steps of the integral; its error is tested.
_STEPS = 512
#: What a heatmap calls its method.
GRAD_CAM, OCCLUSION = "Grad-CAM (HiResCAM)", "occlusion"
ATTENTION, TILES = "attention by tile", "each tile's own answer"
#: Parts of a side that the occluding square covers, and by which it moves.
_WINDOW, _STRIDE = 4, 8


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What moved one answer."""

    heatmap: Heatmap | None
    attributions: tuple[Attribution, ...]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """The one number that is explained."""

    label: str
    place: int | slice | None  # of the network's outputs; several or None: their sum, or of all

    def of(self, output: Tensor) -> Tensor:
        """Return (items,) of (items, outputs)."""
        chosen = output if self.place is None else output[:, self.place]
        return chosen.reshape(len(output), -1).sum(dim=1)


def aim_of(config: RunConfig, output: Tensor) -> Aim:
    """Return what is explained of one output, (outputs,).

    The positive class of two, the largest of several, for survival the risk of the event or of
    the first cause, and for a number or a grade that it is higher.
    """
    match config.task.predicts:
        case SurvivalCurve(event=event):
            return Aim(label=f"risk of {event}", place=None)
        case IncidenceCurves(causes=causes, times=times):
            return Aim(label=f"risk of {causes[0]}", place=slice(len(times)))
        case LabelProbabilities(ordered=True):
            return Aim(label=f"a higher {config.task.outcome_columns[0]}", place=None)
        case LabelProbabilities():
            place = int(output.argmax())
            return Aim(label=config.task.labels[place], place=place)
        case BoundedNumber():
            return Aim(label=f"a higher {config.task.labels[0]}", place=0)
        case LabelMap():
            message = f"task.kind={config.task.kind} gives outlines, which need no explanation."
            raise ValueError(message)


def strength_of(answered: Answered) -> float:
    """Return the network's probability of what is explained, 0 to 1; 1 for a number.

    Of a grade that it is not the lowest.
    """
    config, output, form = answered.config, answered.together, answered.config.task.predicts
    if isinstance(form, BoundedNumber):
        return 1.0
    place = aim_of(config, output).place
    prediction = task_of(config.task).predict(output[None])[0]
    if place is not None:
        return float(prediction[place] if isinstance(place, int) else prediction[place][-1])
    return float(1 - prediction[0 if isinstance(form, LabelProbabilities) else -1])


def explained(deployed: Deployed, answered: Answered) -> Explained:
    """Return the heatmap of the image that speaks loudest for the answer, and attributions.

    Attributions of several rows of a patient are their mean, as the outputs are averaged. Where the
    network weighs a patient's images by attention, the image is the one that counts most.
    """
    config = answered.config
    aim = aim_of(config, answered.together)
    share = attention_of(deployed, answered.items)
    loudest = int((aim.of(answered.output) if share is None else share).argmax())
    heatmap = None
    if answered.items[loudest].tile is not None:
        heatmap = _on_its_slide(answered, share, loudest, aim)
    elif answered.items[loudest].place is not None:
        heatmap = _on_its_frame(deployed, answered, loudest, aim)
    table = config.cohort.table
    if table is None:
        return Explained(heatmap=heatmap, attributions=())
    whole = pools(deployed)  # one answer of all of them: they are explained as one
    parts = [answered.measured] if whole else [(item,) for item in answered.items]
    each = [attributions_of(deployed, part, table, aim) for part in parts]
    return Explained(
        heatmap=heatmap,
        attributions=tuple(
            Attribution(column=same[0].column, value=float(np.mean([a.value for a in same])))
            for same in zip(*each, strict=True)
        ),
    )


def attention_of(deployed: Deployed, items: Sequence[Item]) -> Tensor | None:
    """Return how much each of a patient's items counts, (items,); None without attention."""
    for part in deployed.network.modules():
        if isinstance(part, BagClassifier) and isinstance(part.pool, AttentionPool):
            with torch.no_grad():
                return part.attention(_features(deployed, items))
    return None


def _features(deployed: Deployed, items: Sequence[Item]) -> Tensor:
    """Return (items, ...) as the network takes them: tiles of slides may be features already."""
    return torch.cat(
        [
            item.image[None] if item.image.dim() == 1 else deployed.features(item.image[None])
            for item in items
        ]
    )


def _on_its_slide(
    answered: Answered, share: Tensor | None, chosen: int, aim: Aim
) -> Heatmap | None:
    """Return a slide's small picture with what each of its tiles says: how much it counts.

    Without attention what counts is how high the tile's own answer is.
    """
    origin = answered.items[chosen].tile
    if origin is None:
        return None
    own = [
        i for i, item in enumerate(answered.items) if item.tile and item.tile.view is origin.view
    ]
    counts = aim.of(answered.output).softmax(0) if share is None else share
    rows, columns = origin.view.picture.shape[:2]
    values = np.zeros((rows, columns), np.float32)
    most = max(float(counts.max()), 1e-12)
    for item in own:
        tile = answered.items[item].tile
        if tile is None:
            continue
        box = tile.view.boxes[tile.number] * [rows, columns, rows, columns]
        top, left, bottom, right = np.rint(box).astype(int)
        values[top : max(bottom, top + 1), left : max(right, left + 1)] = float(counts[item]) / most
    return Heatmap(
        values=np.clip(values * strength_of(answered), 0, 1),
        source=0,
        frame=0,
        method=ATTENTION if share is not None else TILES,
        label=aim.label,
        picture=origin.view.picture,
    )


def _on_its_frame(deployed: Deployed, answered: Answered, chosen: int, aim: Aim) -> Heatmap | None:
    item, rules = answered.items[chosen], answered.config.cohort.images
    if item.place is None or rules is None:
        return None
    values, method = heatmap_of(deployed, item, answered.config, aim)
    plane, source, frame = strongest_plane(values, item.place, rules)
    before = dict.fromkeys(s for i in answered.items if i.place for s in i.place.sources)
    return Heatmap(
        # As bright as the answer is sure: what is improbable must not look alarming.
        values=np.clip(plane * strength_of(answered), 0, 1),
        source=list(before).index(item.place.sources[source]),
        frame=frame,
        method=method,
        label=aim.label,
    )


def heatmap_of(deployed: Deployed, item: Item, config: RunConfig, aim: Aim) -> tuple[Tensor, str]:
    """Return (*size) between 0 and 1 on the network's grid, and the method's name."""
    if config.model.network != "vit":
        layer = _last_maps(deployed, item)
        if layer is not None:
            return _scaled(_grad_cam(deployed, item, layer, aim)), GRAD_CAM
    return _scaled(_occlusion(deployed, item, aim)), OCCLUSION


def _scaled(values: Tensor) -> Tensor:
    values = values.clamp_min(0)
    return values / values.max().clamp_min(1e-12)


def _asked(deployed: Deployed, item: Item, aim: Aim) -> Callable[[Tensor], Tensor]:
    """Return (items, channels, *size) -> (items,), the table staying as it is."""

    def ask(image: Tensor) -> Tensor:
        table = item.table.expand(len(image), -1) if item.table.numel() else None
        return aim.of(deployed(image, table)[1])

    def ask_each(image: Tensor) -> Tensor:
        # Several at once would be one patient's bag.
        return torch.cat([ask(one) for one in torch.split(image, 1)])

    return ask_each if pools(deployed) else ask


def _last_maps(deployed: Deployed, item: Item) -> nn.Module | None:
    """Return the last layer whose output still has places, by running the network once."""
    found: list[nn.Module] = []

    def look(layer: nn.Module, _given: object, output: object) -> None:
        places = isinstance(output, Tensor) and output.dim() == item.image.dim() + 1
        if isinstance(output, Tensor) and places and output.shape[2:].numel() > 1:
            found.append(layer)

    leaves = [layer for layer in deployed.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(look) for layer in leaves]
    try:
        with torch.no_grad():
            deployed(**item.inputs())
    finally:
        for hook in hooks:
            hook.remove()
    # An Identity in front passes the image on: those are no maps of the network's own.
    own = [layer for layer in found if not isinstance(layer, nn.Identity)]
    return own[-1] if own else None


def _grad_cam(deployed: Deployed, item: Item, layer: nn.Module, aim: Aim) -> Tensor:
    """Return the layer's maps, each place times its gradient, on the network's grid."""
    held: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, _given, output: held.append(output))
    try:
        with torch.enable_grad():
            image = item.image[None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(_asked(deployed, item, aim)(image).sum(), held[-1:])
    finally:
        hook.remove()
    # A map that is 0 everywhere moves nothing, though the root that frozen features are pooled
    # by has no gradient there.
    weight = gradient.nan_to_num(0.0, 0.0, 0.0)
    found = (weight * held[-1].detach()).sum(dim=1, keepdim=True)
    mode = "bilinear" if item.image.dim() == 3 else "trilinear"
    return F.interpolate(found, tuple(item.image.shape[1:]), mode=mode)[0, 0]


def _occlusion(deployed: Deployed, item: Item, aim: Aim) -> Tensor:
    """Return by how much the output falls where a square is taken to the image's mean."""
    from captum.attr import Occlusion

    size = item.image.shape[1:]
    window = (len(item.image), *(max(1, n // _WINDOW) for n in size))
    stride = (len(item.image), *(max(1, n // _STRIDE) for n in size))
    with torch.no_grad():
        found: Tensor = Occlusion(_asked(deployed, item, aim)).attribute(
            item.image[None],
            sliding_window_shapes=window,
            strides=stride,
            baselines=float(item.image.mean()),
            perturbations_per_eval=4,
        )
    return found[0].mean(dim=0)


def attributions_of(
    deployed: Deployed, items: Sequence[Item], table: Table, aim: Aim
) -> tuple[Attribution, ...]:
    """Return how much each column's value moved the output from where a usual one would be.

    They add up to output(row) - output(usual row). The item is one, or a patient's whole bag, whose
    row is the mean of its items' rows, as the network takes it.
    """
    from captum.attr import IntegratedGradients

    seen, row = _seen_once(deployed, items), torch.stack([i.table for i in items]).mean(dim=0)

    def ask(rows: Tensor) -> Tensor:
        return aim.of(seen.network(rows[:, :0], rows))

    with torch.enable_grad():
        found = IntegratedGradients(ask).attribute(
            row[None],
            baselines=usual_row(row, table)[None],
            n_steps=_STEPS,
            internal_batch_size=_STEPS,
        )
    moved = found[0].detach()
    return tuple(
        Attribution(column=name, value=float(moved[places].sum()))
        for name, places in _places(table)
    )


class _Seen(nn.Module):
    """Gives the features that were made of one image, for as many rows as are asked about."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, image: Tensor) -> Tensor:
        return self.features.expand(len(image), -1)


def _seen_once(deployed: Deployed, items: Sequence[Item]) -> Deployed:
    """Return a copy whose pictures were looked at already: the table alone changes."""
    copied = copy.deepcopy(deployed)
    if items[0].image.numel():
        with torch.no_grad():
            copied.network = _with_features(copied.network, _features(deployed, items))
    return copied


def _with_features(network: nn.Module, features: Tensor) -> nn.Module:
    """Return the network with what it makes of these pictures in their place, by row."""
    if isinstance(network, BagClassifier):
        return Classifier(_Seen(network.pool([network.body(features)])), network.head)
    if isinstance(network, Classifier):
        return Classifier(_Seen(network.body(features)), network.head)
    for name, part in network.named_children():
        network.add_module(name, _with_features(part, features))
    return network


def usual_row(row: Tensor, table: Table) -> Tensor:
    """Return the row of a patient of whom the same is known, with usual values, (width,)."""
    usual = row.clone()
    usual[: len(table.numbers)] = 0.0
    places = _places(table)[len(table.numbers) :]
    for category, (_, (*values, missing)) in zip(table.categories, places, strict=True):
        usual[values] = 0.0 if row[missing] else 1.0 / len(category.values)
    return usual


def _places(table: Table) -> list[tuple[str, list[int]]]:
    """Return each column with its places in a row: its values, and its missing indicator."""
    found: list[tuple[str, list[int]]] = []
    start, missing = 0, table.width - len(table.numbers) - len(table.categories)
    widths = [(c.column, 1) for c in table.numbers]
    widths += [(c.column, len(c.values)) for c in table.categories]
    for number, (name, width) in enumerate(widths):
        found.append((name, [*range(start, start + width), missing + number]))
        start += width
    return found
