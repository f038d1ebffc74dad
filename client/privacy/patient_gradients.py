"""Gradients by patient, in three ways that agree up to rounding.

    loop      one backward pass for each patient: smallest memory, any network
    vmap      several patients side by side (torch.func): fastest at one image each
    linear    networks that train nn.Linear layers only, such as a head on cached features:
              one pass for all patients, gradients from the layers' inputs and outputs

The loop is the reading version; the others are checked against it. In the loop a patient's
gradient has the same bits whoever else is there, also where the network is of others and remembers
(client/privacy/isolation.py). Side by side it does not: float32 products round
by the number of their rows. With ordinary weights one patient more or less moved the others'
contributions by up to 6e-5 of the clip norm in all; with weights that are made for it, by three
times the norm. So only simulations, which claim nothing, take them
(client/privacy/gradient_backend.py).

Public: Objective, Backend, DrawnPatients, LOOP, gradients_by_patient, linear_layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from client.privacy.isolation import Isolation, seed_of
from common.config.patches import PatchRules
from common.data.sample import Patients
from common.models.bags import pools
from common.platform.errors import UnsafeModel

ItemLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is learned, from whom."""

    model: nn.Module  # (image, table) -> output, items first
    item_loss: ItemLoss  # (output, target) -> (items,)
    patients: Patients
    images_per_patient: int  # K: most items of one patient in one step
    patches: PatchRules | None = None  # how patches of volumes are drawn; None: whole images
    apart: bool = False  # one patient after another always


class Backend(NamedTuple):
    """How gradients by patient are made: a matter of speed and of the last bits of a sum."""

    kind: Literal["loop", "vmap", "linear"]
    side_by_side: int = 1  # patients whose gradients are in memory together


#: The smallest memory, any network, the same bits on one machine every time.
LOOP = Backend("loop")


class DrawnPatients(NamedTuple):
    """The patients of a step and their items; secret."""

    place: Tensor  # (patients, most items) position of an item; a short patient repeats its first
    items: Tensor  # (patients,) how many of them count


def gradients_by_patient(
    objective: Objective, parameters: Sequence[nn.Parameter], drawn: DrawnPatients, backend: Backend
) -> Iterator[list[Tensor]]:
    """Yield gradients of the mean loss over a patient's items, each (some patients, *parameter)."""
    if len(drawn.items) == 0:
        return  # splitting no patients gives one empty part, which some layers do not take
    if backend.kind != "loop" and pools(objective.model):
        message = (
            f"The {backend.kind} backend puts patients side by side, and the network makes one "
            "answer of all that it is given; use loop."
        )
        raise UnsafeModel(message)
    match backend.kind:
        case "loop":
            yield from _by_loop(objective, parameters, drawn)
        case "vmap":
            yield from _by_vmap(objective, parameters, drawn, backend.side_by_side)
        case "linear":
            yield from _by_linear(objective, parameters, drawn, backend.side_by_side)


def _by_loop(
    objective: Objective, parameters: Sequence[nn.Parameter], drawn: DrawnPatients
) -> Iterator[list[Tensor]]:
    """Yield one patient's gradient at a time; code of others meets each as if it were the first."""
    each = Isolation(objective.model, objective.item_loss)
    # Of the step's own secret seed; networks of ours go on drawing from that as they always did.
    secret = int(torch.randint(2**62, ())) if each.needed else 0
    for place, count in zip(drawn.place, drawn.items.tolist(), strict=True):
        items = place[:count]
        seed = seed_of(secret, _pseudonym(objective.patients, items)) if each.needed else 0
        yield each.alone(functools.partial(_gradient_of, objective, parameters, items), seed)


def _gradient_of(
    objective: Objective, parameters: Sequence[nn.Parameter], items: Tensor
) -> list[Tensor]:
    """Return the gradient of the mean loss over one patient's items; its graph is gone by then."""
    if objective.patches is not None:
        return _gradient_by_patch(objective, parameters, items)
    patients = objective.patients
    output = objective.model(patients.image[items], patients.table[items])
    # A network that pools answers once for all of the patient's items, which share their target.
    answers = items[:1] if pools(objective.model) else items
    loss = objective.item_loss(output, patients.target[answers]).mean()
    # Materialised: some networks hold parameters that they never use.
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return [gradient[None] for gradient in found]


def _gradient_by_patch(
    objective: Objective, parameters: Sequence[nn.Parameter], items: Tensor
) -> list[Tensor]:
    """Return the gradient of the mean loss over a patient's patches, one of them in memory."""
    patients = objective.patients
    total = [torch.zeros_like(parameter)[None] for parameter in parameters]
    for one in torch.split(items, 1):
        output = objective.model(patients.image[one], patients.table[one])
        loss = objective.item_loss(output, patients.target[one]).sum() / len(items)
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for place, gradient in enumerate(found):
            total[place] += gradient
    return total


def _pseudonym(patients: Patients, items: Tensor) -> str:
    return patients.pseudonyms[int(patients.patient[items[0]])]


def _by_vmap(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    drawn: DrawnPatients,
    side_by_side: int,
) -> Iterator[list[Tensor]]:
    """Yield many patients' gradients at once, for simulations: fastest for one image each.

    Who is beside a patient moves the last bits of their gradient.
    """
    model, patients = objective.model, objective.patients
    wanted = {id(p) for p in parameters}
    named = {n: p.detach() for n, p in model.named_parameters() if id(p) in wanted}
    fixed = {n: p.detach() for n, p in model.named_parameters() if id(p) not in wanted}
    fixed |= {n: b.detach() for n, b in model.named_buffers()}
    place_of = {id(p): i for i, p in enumerate(parameters)}
    order = [place_of[id(p)] for _, p in model.named_parameters() if id(p) in wanted]

    def loss(
        learned: dict[str, Tensor], image: Tensor, table: Tensor, target: Tensor, weight: Tensor
    ) -> Tensor:
        output = torch.func.functional_call(model, {**fixed, **learned}, (image, table))
        return (objective.item_loss(output, target) * weight).sum()

    gradient = torch.func.vmap(
        torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0), randomness="different"
    )
    weight = _weight(drawn)
    for rows in torch.split(torch.arange(len(drawn.items)), side_by_side):
        place = drawn.place[rows]
        found = list(
            gradient(
                named,
                patients.image[place],
                patients.table[place],
                patients.target[place],
                weight[rows],
            ).values()
        )
        yield [found[order.index(i)] for i in range(len(parameters))]


def _weight(drawn: DrawnPatients) -> Tensor:
    """Return 1 / items for the items that count and 0 for the repeats, (patients, most items)."""
    most = drawn.place.shape[1]
    present = torch.arange(most) < drawn.items[:, None]
    return present / drawn.items[:, None]


def linear_layers(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[nn.Linear] | None:
    """Return the layers that hold exactly these parameters, or None when others hold some."""
    wanted = {id(p) for p in parameters}
    layers = [
        m
        for m in model.modules()
        if isinstance(m, nn.Linear) and any(id(p) in wanted for p in m.parameters())
    ]
    held = [id(p) for layer in layers for p in layer.parameters()]
    return layers if sorted(held) == sorted(wanted) else None


def _by_linear(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    drawn: DrawnPatients,
    side_by_side: int,
) -> Iterator[list[Tensor]]:
    """Yield outer products of what enters a layer and what comes back to it, for simulations.

    Who is beside a patient moves the last bits of their gradient.
    """
    layers = linear_layers(objective.model, parameters)
    if layers is None:
        message = "The linear backend was asked to train a network with other layers; use loop."
        raise UnsafeModel(message)
    weight = _weight(drawn)
    for rows in torch.split(torch.arange(len(drawn.items)), side_by_side):
        held = {id(p): g for p, g in _of_layers(objective, layers, drawn.place[rows], weight[rows])}
        yield [held[id(p)] for p in parameters]


def _of_layers(
    objective: Objective, layers: Sequence[nn.Linear], place: Tensor, weight: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    patients, most = objective.patients, place.shape[1]
    # All items in their order, as in every full-batch step, need no copy.
    whole = torch.equal(place.flatten(), torch.arange(len(patients.patient)))
    items = slice(None) if whole else place.flatten()
    with _Watched(layers) as watched:
        output = objective.model(patients.image[items], patients.table[items])
    loss = (objective.item_loss(output, patients.target[items]) * weight.flatten()).sum()
    returned = torch.autograd.grad(loss, [watched.output[id(layer)] for layer in layers])
    for layer, gradient in zip(layers, returned, strict=True):
        entered = watched.input[id(layer)].detach().reshape(-1, most, layer.in_features)
        back = gradient.reshape(-1, most, layer.out_features)
        yield layer.weight, back.transpose(1, 2) @ entered
        if isinstance(layer.bias, Tensor):
            yield layer.bias, back.sum(1)


class _Watched:
    """Keeps what enters and leaves some layers in one forward pass."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.input: dict[int, Tensor] = {}
        self.output: dict[int, Tensor] = {}
        self._hooks = [layer.register_forward_hook(self._keep) for layer in layers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, layer: nn.Module, entered: tuple[Tensor, ...], left: Tensor) -> None:
        if id(layer) in self.input or entered[0].dim() != 2:
            message = f"{layer} is used twice or not by item; the linear backend cannot be used."
            raise UnsafeModel(message)
        self.input[id(layer)], self.output[id(layer)] = entered[0], left
