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
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from client.privacy.extension_guard import (
    CONTRAST,
    changed_tensor,
    check_finite,
    check_gradients,
    check_memory,
    check_state,
    check_traces,
    scaled,
    tensors_of,
)
from client.privacy.isolation import Isolation
from client.privacy.patient_gradients import ItemLoss, Objective
from client.privacy.patient_sampling import draw
from client.privacy.private_step import accumulate, patient_optimizer
from common.data.sample import Patients, take
from common.extensions.global_state import drawing_from
from common.models.bags import answered, of_each, pools
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
    trial = replace(objective, patients=_made_up(objective.patients))
    if foreign:
        _check_foreign(trial)
    trial = _copied(trial, training=True)
    for check in (check_buffers, check_peers, check_loss):
        check(trial)
    check_clip(trial, plan, noise)


def _check_foreign(trial: Objective) -> None:
    """Try an extension's network in both modes, each time a copy that was never called.

    What its code keeps beside it is put back after each check, so that none finds it set already.
    """
    check_state(trial)
    apart = Isolation(trial.model, trial.item_loss)
    for training in _MODES:
        for check in _FOREIGN_CHECKS:
            try:
                apart.alone(functools.partial(check, _copied(trial, training=training)))
            except UnsafeModel:
                raise
            except (Exception, SystemExit) as error:
                mode = "training" if training else "evaluation"
                message = (
                    f"The network fails where it is tried in {mode}: {type(error).__name__}: "
                    f"{error!s:.300}. Nothing was charged; tell its author."
                )
                raise UnsafeModel(message) from error


def _copied(trial: Objective, *, training: bool) -> Objective:
    return replace(trial, model=copy.deepcopy(trial.model).train(training))


def check_layers(model: nn.Module) -> None:
    """Refuse layers that look at more than one item, trained, frozen or without parameters."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the common parent
            raise _unsafe(name, module, "mixes the patients of a batch; put GroupNorm in its place")
        if any(getattr(module, kept, None) is not None for kept in _STATISTICS):
            raise _unsafe(name, module, "keeps running statistics of patients' images")


def check_buffers(trial: Objective) -> None:
    """Refuse buffers and weights that a forward pass changes: they leave a trace of the data."""
    before = {name: value.clone() for name, value in tensors_of(trial.model)}
    _forward(trial.model, trial.patients.image[:], trial.patients.table)
    if name := changed_tensor(trial.model, before):
        place = name.rpartition(".")[0]
        kind = "buffer" if name in dict(trial.model.named_buffers()) else "parameter"
        module = trial.model.get_submodule(place)
        raise _unsafe(place, module, f"changes its {kind} {name} with the data")


def check_peers(trial: Objective) -> None:
    """Refuse a network whose answer on one item follows the others in its batch.

    Of one that pools, the items are those of a patient (`check_bags`).
    """
    if pools(trial.model):
        check_bags(trial)
        return
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


def check_bags(trial: Objective) -> None:
    """Refuse a network that pools where one patient's answer follows other patients' pictures."""
    made_up = trial.patients
    twice = torch.arange(_ITEMS).repeat_interleave(2)
    patients = replace(
        made_up,
        image=scaled(made_up.image[twice], 1.0 + torch.arange(len(twice)) % 2),
        table=made_up.table[twice],
        target=made_up.target[twice],
        patient=twice,
    )
    quiet = take(patients, torch.arange(len(twice)))
    for watched in range(_ITEMS):
        scale = torch.where(quiet.patient == watched, 1.0, CONTRAST)
        loud = quiet._replace(image=scaled(quiet.image, scale), table=scaled(quiet.table, scale))
        found = []
        for batch in (quiet, loud):
            with drawing_from(0, ()), torch.no_grad():
                found.append(answered(trial.model, batch)[0])
        if not _close(found[1][watched], found[0][watched]):
            fault = "gives one patient another answer beside other patients"
            raise _unsafe("", trial.model, fault)


def check_loss(trial: Objective) -> None:
    """Refuse a loss that is not one number an item, or that compares items with each other."""
    patients = trial.patients
    output = _forward(trial.model, patients.image[:], patients.table)[:_ITEMS]
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
    loud = replace(trial.patients, image=CONTRAST * trial.patients.image[:])
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
    one = (torch.arange(_ITEMS) % 2 == 0).reshape(-1, *[1] * (len(real.target.shape) - 1))
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
    """Return the output of each made-up patient, who has one item.

    Dropout draws the same each time, and nothing from the global state.
    """
    with drawing_from(0, ()), torch.no_grad():
        return of_each(model, image, table)


#: Training, and evaluation: a network may remember in one of them alone.
_MODES = (True, False)
#: Where one fault has several effects, the check whose words say most comes first.
_FOREIGN_CHECKS: tuple[Callable[[Objective], None], ...] = (
    check_buffers,
    check_traces,
    check_finite,
    check_memory,
    check_peers,
    check_loss,
    check_gradients,
)


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
