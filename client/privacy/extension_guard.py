"""Guard of the per-patient bound against what an extension may do, tried on made-up items.

Isolation (client/privacy/isolation.py) holds whatever a network keeps where it can be reached. This
guard refuses what isolation cannot put back, and what would be wrong beside it; each check gets a
copy that was never called, in training and in evaluation.

    holds what cannot be put back (a generator that is running, an open file)     refused
    sets buffers, weights, torch's switches or a generator's seed, starts a thread refused
    not finite on an empty, an even, a very bright image   refused: such patients would not count
    gradient of one item follows the items beside it       refused, from a leak of 1e-3 on
    answer follows what was seen before: the first image, the last, one of some 60 before it,
    kept wherever it is in this process                    refused
    code that reads, keeps or sends images on purpose, or waits until it is no longer tried
                                                           NOT seen here: docs/extensions.md

Public: check_finite, check_gradients, check_memory, check_state, check_traces, changed_tensor,
    tensors_of, scaled, CONTRAST.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from client.privacy.isolation import Isolation
from client.privacy.patient_gradients import Objective
from client.privacy.reachable_state import Reachable
from common.data.sample import Patients
from common.extensions.global_state import Switches, drawing_from, generators
from common.models.bags import of_each
from common.platform.errors import UnsafeModel

#: Where generators start: no seed that a network would set.
_SEED = 7_368_787
#: How often the made-up items are repeated, for networks that look beside them in large batches.
_TIMES = 3
#: How much other items are changed.
CONTRAST = 100.0
#: How little a gradient may follow them. A batch mean that leaks at 1e-3 moves it by some 1e-4.
_TOLERANCE = 1e-5
#: How far weights are moved from their start, and how bright the brightest image is.
_STEP = 0.02
_BRIGHT = 1e4
#: How often a network is asked where memory is looked for: more than a queue of 64 holds. It is
#: asked again about what it was asked first at these calls.
_CALLS = 68
_LOOKS = frozenset({0, 1, 2, 3, 24, 25, _CALLS - 2, _CALLS - 1})


def check_state(trial: Objective) -> None:
    """Refuse a network that holds what nobody can put back, or that cannot be copied."""
    for place in Reachable(trial.model, trial.item_loss).opaque:
        message = (
            f"The network holds a {place.kind} at {place.where or 'an attribute'}, which cannot be "
            "put back between patients. Keep numbers, tensors, arrays, lists or dicts."
        )
        raise UnsafeModel(message)
    for name, value in trial.model.state_dict(keep_vars=True).items():
        if type(value) not in {Tensor, nn.Parameter, nn.Buffer}:
            message = (
                f"{name} is a {type(value).__qualname__}, expected a torch.Tensor or Parameter: "
                "another kind of tensor computes as it likes."
            )
            raise UnsafeModel(message)
    try:
        copy.deepcopy(trial.model)
    except Exception as error:
        message = (
            f"The network cannot be copied ({type(error).__name__}: {error!s:.200}), so that it "
            "cannot be tried. Keep in it what copy.deepcopy takes."
        )
        raise UnsafeModel(message) from error


def check_traces(trial: Objective) -> None:
    """Refuse what a pass leaves behind: tensors, threads, torch's switches, generators."""
    before, threads, switches = _values(trial.model), set(threading.enumerate()), Switches()
    stood: list[Mapping[str, bytes]] = []
    for patients in _quiet_and_loud(trial.patients):
        with drawing_from(_SEED, ()):
            _answer(trial, patients, 0)
            if torch.initial_seed() != _SEED:
                _refuse("seeds torch's global generator in a pass")
            stood.append(generators())
    if changed := switches.changed():
        _refuse(f"sets torch's {changed[0]} in a pass")
    if set(threading.enumerate()) - threads:
        _refuse("starts a thread in a pass")
    if changed := [name for name, state in stood[0].items() if stood[1][name] != state]:
        _refuse(f"sets {changed[0]} global generator by what it sees")
    if name := changed_tensor(trial.model, before):
        _refuse(f"changes {name} with the data")


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors_of(model)}


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield buffers and parameters by name."""
    yield from model.named_buffers()
    yield from ((name, value.detach()) for name, value in model.named_parameters())


def changed_tensor(model: nn.Module, before: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor that is another than it was; empty without."""
    for name, value in tensors_of(model):
        if name not in before or not torch.equal(value, before[name]):
            return name
    return ""


def check_finite(trial: Objective) -> None:
    """Refuse a network that is not finite on images that occur: empty, even, very bright."""
    patients = trial.patients
    for what, value in (("0", 0.0), ("1", 1.0), (f"{_BRIGHT:g}", _BRIGHT)):
        image, table = torch.full_like(patients.image[:], value), torch.zeros_like(patients.table)
        found = _asked(trial, replace(patients, image=image, table=table), 0)
        if not all(bool(torch.isfinite(part).all()) for part in found):
            message = (
                f"The network's answer or gradient on an image that is {what} everywhere is not "
                "finite: such patients would not count in training. Divide by nothing that can be "
                "0, or add a small number to it."
            )
            raise UnsafeModel(message)


def check_gradients(trial: Objective) -> None:
    """Refuse a gradient, or an answer in evaluation, that follows the items beside it.

    On weights that were moved from their start, where an output layer of zeros hides nothing.
    """
    patients = _repeated(trial.patients)
    others = torch.full((len(patients.patient),), CONTRAST)
    others[0] = 1.0
    loud = replace(
        patients, image=scaled(patients.image[:], others), table=scaled(patients.table, others)
    )
    quiet, beside = (
        _asked(replace(trial, model=_moved(trial.model)), some, 0) for some in (patients, loud)
    )
    if not all(map(_very_close, beside, quiet)):
        _refuse("gives one item another gradient beside other items")


def check_memory(trial: Objective) -> None:
    """Refuse an answer or a gradient that follows what was seen before.

    What each of two patients gets from a copy that nobody was shown, they must get in either order,
    and after many others.
    """
    both = _quiet_and_loud(trial.patients)
    apart = Isolation(trial.model, trial.item_loss)
    expected = [
        apart.alone(functools.partial(_asked, _unseen(trial), patients, 0)) for patients in both
    ]
    for order, calls in (((0, 1), _CALLS), ((1, 0), len(_LOOKS))):
        unseen = _unseen(trial)
        apart.alone(functools.partial(_check_calls, unseen, both, expected, order, calls))


def _unseen(trial: Objective) -> Objective:
    return replace(trial, model=_moved(trial.model))


def _check_calls(
    trial: Objective,
    both: tuple[Patients, Patients],
    expected: list[tuple[Tensor, ...]],
    order: tuple[int, int],
    calls: int,
) -> None:
    for call in range(calls):
        which = order[call % 2]
        patients = both[which]
        if call not in _LOOKS:  # somebody else yet, brighter each time
            _asked(trial, replace(patients, image=(1 + call) * patients.image[:]), 0)
        elif not all(map(_very_close, _asked(trial, patients, 0), expected[which])):
            _refuse("remembers what it saw before")


def _repeated(patients: Patients) -> Patients:
    items = torch.arange(len(patients.patient)).repeat(_TIMES)
    return replace(
        patients,
        image=patients.image[items],
        table=patients.table[items],
        target=patients.target[items],
        patient=items,
    )


def _quiet_and_loud(patients: Patients) -> tuple[Patients, Patients]:
    """Return two patients by themselves, one of them bright."""
    return _only(patients, 0, 1.0), _only(patients, 1, CONTRAST)


def _only(patients: Patients, item: int, scale: float) -> Patients:
    one = slice(item, item + 1)
    return Patients(
        image=patients.image[one] * scale,
        table=patients.table[one] * scale,
        target=patients.target[one],
        patient=torch.zeros(1, dtype=torch.int64),
        pseudonyms=(patients.pseudonyms[item],),
    )


def _moved(model: nn.Module) -> nn.Module:
    """Return a copy with other weights, the same each time."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in copied.parameters():
            step = torch.randn(value.shape, generator=generator) * _STEP
            value.add_(step.to(value.device))
    return copied


def _asked(trial: Objective, patients: Patients, item: int) -> tuple[Tensor, ...]:
    """Return what `_answer` does, every generator starting at the same place."""
    with drawing_from(_SEED, ()):
        return _answer(trial, patients, item)


def _answer(trial: Objective, patients: Patients, item: int) -> tuple[Tensor, ...]:
    """Return one item's output among the others of a batch and, in training, its loss's gradient.

    In evaluation it is asked as evaluation asks.
    """
    if not trial.model.training:
        with torch.inference_mode():
            return (of_each(trial.model, patients.image[:], patients.table)[item].clone(),)
    parameters = [p for p in trial.model.parameters() if p.requires_grad]
    with torch.inference_mode(mode=False), torch.enable_grad():
        output = of_each(trial.model, patients.image[:], patients.table)
        loss = trial.item_loss(output, patients.target[:])[item]
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return output[item].detach().clone(), torch.cat([part.flatten() for part in found])


def _refuse(fault: str) -> None:
    message = f"The network {fault}: a patient's part could not be clipped, nor be told apart."
    raise UnsafeModel(message)


def scaled(values: Tensor, scale: Tensor) -> Tensor:
    """Return each item times its own number."""
    return values * scale.reshape(-1, *[1] * (values.dim() - 1))


def _very_close(found: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * largest + 1e-9)
