"""Choice of how gradients by patient are made, by network and by what the noise promises.

    noise that nobody can repeat   one patient after another, alone: a claim is made of it
    simulated noise                side by side where the network is small: no claim, more seeds
    a network of an extension      one after another always: it may look at its input's values
    a network that pools           one after another always: one call is one patient's bag
    patches of volumes             one after another always: one patch is in memory
    steps in bfloat16              one after another always: peers would move far more bits
    blocks that are recomputed     one after another always: torch.func keeps no such blocks

Side by side a float32 product rounds by the number of its rows, so one patient moves the last bits
of others. With weights of a training that is some 1e-5 of the clip norm; with weights that are made
for it (1e9, which a bias takes off again) the last bit is the whole gradient, and one patient
moved the sum by four clip norms. No margin holds against that, so real runs do not do it.

Public: backend_of.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from client.privacy.patient_gradients import LOOP, Backend, Objective, linear_layers
from common.models.bags import pools

#: Below this many trained parameters, gradients of many patients fit side by side.
_SMALL = 200_000
_MANY = 256


def backend_of(
    objective: Objective,
    parameters: Sequence[nn.Parameter],
    *,
    simulated: bool,
    foreign: bool = False,
) -> Backend:
    """Return the loop for real noise; for simulated noise the likely fastest, by rule alone."""
    whole = objective.patches is None and not objective.apart and not pools(objective.model)
    apart = not simulated or foreign or not whole
    if apart or sum(p.numel() for p in parameters) >= _SMALL:
        return LOOP
    kind = linear_layers(objective.model, parameters)
    return Backend("vmap" if kind is None else "linear", _MANY)
