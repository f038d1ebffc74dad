"""One step that hides every patient.

Guarantee: adding or removing one patient, with any number of images of any content,
changes the sum that noise is added to by at most `clip_norm` in L2 norm. So each step is a
(sampled) Gaussian mechanism over patients with noise multiplier sigma.

    patient                                  contribution
    one image or many                        gradient of the mean loss over up to K of them
    gradient of any size                     scaled to at most clip_norm
    gradient not finite (broken image)       zero
    nobody drawn                             pure noise; the step is taken and was charged
    batch peers                              do not enter: the network has no batch statistics

The sum is divided by a public constant. The number of patients drawn is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.privacy.noise import NoiseSource, on_grid
from common.privacy.plan import PrivacyPlan
from common.sample import Patients

ItemLoss = Callable[[Tensor, Tensor], Tensor]
Backend = Literal["loop", "vmap"]

#: AUTO-S keeps small gradients from being blown up (Bu et al. 2023, eq. 4.2).
_AUTO_GAMMA = 0.01
#: Patients whose gradients stand side by side in the vmap backend.
_VMAP_CHUNK = 64


def clip_factor(
    norm: Tensor, clip_norm: float, clipping: Literal["automatic", "flat"]
) -> Tensor:
    """Return what a gradient of this norm is multiplied by; 0 where the norm is not finite."""
    match clipping:
        case "automatic":
            factor = clip_norm / (norm + _AUTO_GAMMA)
        case "flat":
            factor = (clip_norm / norm.clamp_min(1e-30)).clamp_max(1.0)
    return torch.where(torch.isfinite(norm), factor, torch.zeros_like(norm))


def draw_items(patients: Patients, patient: int, most: int, generator: torch.Generator) -> Tensor:
    """Return up to `most` of a patient's items."""
    items = patients.items_of(patient)
    if len(items) <= most:
        return items
    return items[torch.randperm(len(items), generator=generator)[:most]]


def clipped_sum(
    model: nn.Module, item_loss: ItemLoss, patients: Patients, items: Sequence[Tensor],
    plan: PrivacyPlan, backend: Backend,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the sum of the drawn patients' clipped gradients, by parameter name."""
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    parameters = dict(model.named_parameters())
    total = {n: torch.zeros_like(parameters[n]) for n in names}
    match backend:
        case "loop":
            gradients = _by_loop(model, item_loss, patients, items)
        case "vmap":
            gradients = _by_vmap(model, item_loss, patients, items)
    for several in gradients:  # (patients, ...) by name
        squares = [g.flatten(1).float().pow(2).sum(1) for g in several.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        factor = clip_factor(norms, plan.mechanism.clip_norm, plan.clipping)
        for name, gradient in several.items():
            # nan times 0 is nan, so what is not finite is replaced before it is scaled.
            finite = torch.where(factor.reshape(-1, *[1] * (gradient.dim() - 1)) > 0, gradient, 0.0)
            total[name] += torch.tensordot(factor, finite, dims=1)
    return total


def _by_loop(
    model: nn.Module, item_loss: ItemLoss, patients: Patients, items: Sequence[Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Yield one patient's gradient at a time: the smallest memory, any network."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for chosen in items:
        output = model(patients.image[chosen], patients.table[chosen])
        loss = item_loss(output, patients.target[chosen]).mean()
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        yield {
            name: (torch.zeros_like(p) if g is None else g)[None]
            for (name, p), g in zip(named.items(), found, strict=True)
        }


def _by_vmap(
    model: nn.Module, item_loss: ItemLoss, patients: Patients, items: Sequence[Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Yield many patients' gradients at once: fastest for one image each and small heads."""
    named = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    fixed = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    fixed |= {n: b.detach() for n, b in model.named_buffers()}

    def loss(
        trained: dict[str, Tensor], image: Tensor, table: Tensor, target: Tensor, weight: Tensor
    ) -> Tensor:
        output = torch.func.functional_call(model, {**trained, **fixed}, (image, table))
        return (item_loss(output, target) * weight).sum()

    gradient = torch.func.vmap(
        torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0), randomness="different"
    )
    for start in range(0, len(items), _VMAP_CHUNK):
        places, weight = _padded(items[start : start + _VMAP_CHUNK])
        yield gradient(
            named, patients.image[places], patients.table[places], patients.target[places], weight
        )


def _padded(items: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return positions and weights, (patients, most items): a shorter patient repeats its first."""
    most = max(len(chosen) for chosen in items)
    places = torch.stack([
        torch.cat([chosen, chosen[:1].expand(most - len(chosen))]) for chosen in items
    ])  # fmt: skip
    counts = torch.tensor([len(chosen) for chosen in items])
    present = torch.arange(most)[None] < counts[:, None]
    return places, present / counts[:, None]


def private_gradient(
    model: nn.Module, item_loss: ItemLoss, patients: Patients, items: Sequence[Tensor],
    plan: PrivacyPlan, backend: Backend, noise: NoiseSource,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the noised mean gradient, by parameter name: safe to release."""
    mechanism = plan.mechanism
    total = clipped_sum(model, item_loss, patients, items, plan, backend)
    spread = mechanism.noise_multiplier * mechanism.clip_norm
    released = {}
    for name, value in total.items():
        summed = on_grid(value.double().numpy(), mechanism.clip_norm)
        draw = on_grid(noise.gaussian(tuple(value.shape), spread), mechanism.clip_norm)
        mean = (summed + draw) / mechanism.divisor
        released[name] = torch.from_numpy(np.asarray(mean)).to(value.dtype)
    return released


def drawn_patients(patients: int, rate: float, noise: NoiseSource) -> list[int]:
    """Return who is in a step: all of them, or a secret draw with probability `rate` each."""
    if rate >= 1:
        return list(range(patients))
    return [int(i) for i in np.flatnonzero(noise.chosen(patients, rate))]
