"""Guard of the per-patient bound: networks and losses that would break clipping are refused.

What Opacus' validator lets through (BatchNorm without parameters or frozen, running
statistics, buffers that follow the data) is refused by kind, and what no list of kinds can
hold is tried out on made-up images: buffers or weights that a forward pass changes, items that see
their batch peers, losses that do, one patient who moves the sum by more than the clip norm; and of
an extension's network also what extension_guard tries.

Public: check_model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from client.privacy.extension_guard import CONTRAST, check_finite, check_gradients, scaled
from client.privacy.patient_gradients import ItemLoss, Objective
from client.privacy.private_step import accumulate, draw, patient_optimizer
from common.data.sample import Patients
from common.platform.errors import UnsafeModel
from common.privacy.noise import NoiseSource
from common.privacy.plan import PrivacyPlan

#: Items in a trial batch: the one that is watched, and its peers.
_ITEMS = 3
_TOLERANCE = 1e-3
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def check_model(
    objective: Objective, plan: PrivacyPlan, noise: NoiseSource, *, foreign: bool = False
) -> None:
    """Raise UnsafeModel, naming the module, unless one patient's part can be clipped.

    An extension's network (`foreign`) is tried for more than ours, which the tests hold.
    """
    check_layers(objective.model)
    model = copy.deepcopy(objective.model).train()
    trial = replace(objective, model=model, patients=_made_up(objective.patients))
    check_buffers(trial)
    if foreign:
        check_finite(trial)
    check_peers(trial)
    check_loss(trial)
    if foreign:
        check_gradients(trial)
    check_clip(trial, plan, noise)


def check_layers(model: nn.Module) -> None:
    """Refuse layers that look at more than one item, trained, frozen or without parameters."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the common parent
            raise _unsafe(name, module, "mixes the patients of a batch; put GroupNorm in its place")
        if any(getattr(module, kept, None) is not None for kept in _STATISTICS):
            raise _unsafe(name, module, "keeps running statistics of patients' images")


def check_buffers(trial: Objective) -> None:
    """Refuse buffers and weights that a forward pass changes: they leave a trace of the data."""
    before = {name: value.clone() for name, value in _tensors(trial.model)}
    _forward(trial.model, trial.patients.image, trial.patients.table)
    buffers = {name for name, _ in trial.model.named_buffers()}
    for name, value in _tensors(trial.model):
        if name not in before or not torch.equal(value, before[name]):
            place = name.rpartition(".")[0]
            kind = "buffer" if name in buffers else "parameter"
            module = trial.model.get_submodule(place)
            raise _unsafe(place, module, f"changes its {kind} {name} with the data")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_buffers()
    yield from ((name, value.detach()) for name, value in model.named_parameters())


def check_peers(trial: Objective) -> None:
    """Refuse a network whose answer on one item follows the others in its batch."""
    image, table = trial.patients.image[:_ITEMS], trial.patients.table[:_ITEMS]
    for watched in (0, _ITEMS - 1):
        scale = torch.full((_ITEMS,), CONTRAST)
        scale[watched] = 1.0
        with _Outputs(trial.model, watched) as quiet:
            _forward(trial.model, image, table)
        with _Outputs(trial.model, watched) as loud:
            _forward(trial.model, scaled(image, scale), scaled(table, scale))
        changed = [n for n, e in quiet.found.items() if not _close(loud.found[n], e)]
        if "" in changed:  # the network's own answer; the first that changed is to blame
            module = trial.model.get_submodule(changed[0])
            raise _unsafe(changed[0], module, "gives one item another answer beside other items")


def check_loss(trial: Objective) -> None:
    """Refuse a loss that is not one number an item, or that compares items with each other."""
    patients = trial.patients
    output = _forward(trial.model, patients.image, patients.table)[:_ITEMS]
    target = patients.target[:_ITEMS]
    loss = trial.item_loss(output, target)
    if loss.shape != (_ITEMS,):
        message = (
            f"The loss of {_ITEMS} items has shape {tuple(loss.shape)}, expected ({_ITEMS},): "
            "one number an item, so that each patient's part can be clipped. Use reduction='none' "
            "and average over everything but the items."
        )
        raise UnsafeModel(message)
    other = output.clone()
    other[1:] = CONTRAST * other[1:] + 1.0
    if not _close(trial.item_loss(other, target)[0], loss[0]):
        raise UnsafeModel(_coupled(trial.item_loss))


def check_clip(trial: Objective, plan: PrivacyPlan, noise: NoiseSource) -> None:
    """Refuse a set-up in which leaving one patient out moves the sum by more than the clip norm."""
    loud = replace(trial.patients, image=CONTRAST * trial.patients.image)
    fewer = _without_last(loud)
    sums = []
    for patients in (loud, fewer):
        plain = torch.optim.SGD([p for p in trial.model.parameters() if p.requires_grad], lr=0.0)
        optimizer = patient_optimizer(plain, plan, noise)
        objective = replace(trial, patients=patients, model=trial.model.eval())
        everyone = draw(patients, 1.0, objective.images_per_patient, noise)
        accumulate(objective, optimizer, everyone, noise)
        sums.append(torch.cat([part.flatten() for part in optimizer.clipped_sum()]))
    moved, allowed = float((sums[0] - sums[1]).norm()), plan.mechanism.clip_norm
    if moved > allowed * (1 + 1e-5):
        message = (
            f"One patient moves the sum by {moved:.6g}, expected at most clip_norm={allowed:g}. "
            "This is a defect: do not train with privacy, and report the network."
        )
        raise UnsafeModel(message)


def _made_up(real: Patients) -> Patients:
    """Return made-up patients of one item each, of the cohort's shapes alone.

    Nothing of a patient goes in, not even a label: with weights that were made for it, whether
    the check passes would tell the label of the site's first patient, and be charged nothing.
    """
    generator = torch.Generator().manual_seed(0)
    # Ones and zeros are values of every task: a label, a structure, an event and who is at risk.
    one = (torch.arange(_ITEMS) % 2 == 0).reshape(-1, *[1] * (real.target.dim() - 1))
    target = one.expand(_ITEMS, *real.target.shape[1:]).to(real.target.dtype)
    return Patients(
        image=torch.randn((_ITEMS, *real.image.shape[1:]), generator=generator),
        table=torch.randn((_ITEMS, *real.table.shape[1:]), generator=generator),
        target=target,
        patient=torch.arange(_ITEMS),
        pseudonyms=tuple(f"made up {i}" for i in range(_ITEMS)),
    )


def _without_last(patients: Patients) -> Patients:
    stay = patients.patient < len(patients) - 1
    return Patients(
        image=patients.image[stay],
        table=patients.table[stay],
        target=patients.target[stay],
        patient=patients.patient[stay],
        pseudonyms=patients.pseudonyms[:-1],
    )


def _forward(model: nn.Module, image: Tensor, table: Tensor) -> Tensor:
    """Return the output; dropout draws the same each time, and nothing from the global state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        output: Tensor = model(image, table)
    return output


class _Outputs:
    """Keeps what each module answers on one item during a forward pass, in order of the pass."""

    def __init__(self, model: nn.Module, item: int) -> None:
        self.found: dict[str, Tensor] = {}
        self._item = item
        self._names = {module: name for name, module in model.named_modules()}
        self._hooks = [module.register_forward_hook(self._keep) for module in self._names]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, module: nn.Module, _: tuple[Tensor, ...], output: object) -> None:
        # Inside, a network may lay items out its own way (windows, sequence first): there a
        # change says where to look, and only the whole network's answer decides.
        name = self._names[module]
        if isinstance(output, Tensor) and (name == "" or len(output) == _ITEMS):
            self.found[name] = output[self._item].detach().clone()


def _close(found: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * largest + 1e-6)


def _coupled(item_loss: ItemLoss) -> str:
    return (
        f"{item_loss} of one item changes with the other items in the batch, expected a sum over "
        "patients. The Cox partial likelihood and Dice over a batch are such losses; use the "
        "discrete-time hazard, or Dice by item."
    )


def _unsafe(name: str, module: nn.Module, fault: str) -> UnsafeModel:
    kind = type(module).__name__
    return UnsafeModel(
        f"{name or 'The network'} ({kind}) {fault}: a patient's part could not be clipped."
    )
