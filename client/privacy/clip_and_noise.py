"""Opacus' optimiser with patients for samples: clip, sum, noise, divide, step.

`DPOptimizer` carries the state and the order of things (`grad_sample`, `summed_grad`, virtual
batches, `step`); what is replaced are its clipping (automatic, and zero for what is not finite),
its sum (exact) and its noise (ours, without a seed). Loaded when a private run starts:
importing Opacus takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from client.privacy.clipping import (
    EXACT_IN_FLOAT32,
    FLOAT_ERROR,
    PEER_ERROR,
    add_in_units,
    clip_factor,
    patient_norms,
)
from common.privacy.noise import GRID, NoiseSource
from common.privacy.plan import PrivacyPlan

#: Coordinates that are noised at a time: they stay in the processor's cache.
_CHUNK = 2**16
_EVERYWHERE = slice(None)


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types
    """A torch optimiser that sees nothing but the noised mean over patients.

    Guarantee: one patient, present or absent, changes the sum before noise by at most clip_norm.
    Contributions are whole multiples of GRID x clip_norm and are added without rounding, so this
    holds for the sum as the machine computes it, not only on paper. Noise comes as whole
    multiples, too, so what is released is the rounding of a sum with unrounded Gaussian noise.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: PrivacyPlan, noise: NoiseSource
    ) -> None:
        mechanism = plan.mechanism
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip_norm,
            expected_batch_size=mechanism.divisor,  # public; never the number drawn
        )
        self.plan = plan
        self._noise = noise
        self._sizes = [parameter.numel() for parameter in self.params]
        width = sum(self._sizes)
        device = self.params[0].device if self.params else torch.device("cpu")
        self._waiting = 0  # patients in the sum in float32
        # (width,) whole numbers: all parameters in a row
        self._sum = torch.zeros(width, device=device)
        self._parts = self._by_parameter(self._sum)  # views, by parameter
        self._total: Tensor | None = None  # (width,) float64, once there are more than 16 patients
        # (width,) what `grad` of all parameters is a view of
        self._released = torch.zeros(0, device=device)
        # Rounding to the grid lengthens a vector by half a step a coordinate at most.
        reserve = 0.5 * math.sqrt(width) * GRID + FLOAT_ERROR + PEER_ERROR
        self._bound = mechanism.clip_norm * (1.0 - reserve)

    def accumulate(self, gradients: Sequence[Tensor]) -> None:
        """Add some patients' clipped gradients, each (patients, *parameter), and forget them."""
        for parameter, gradient in zip(self.params, gradients, strict=True):
            parameter.grad_sample = gradient
        # Opacus' virtual batches: add up now, noise and step when nothing is skipped.
        self.signal_skip_step()
        self.step()
        self.zero_grad(set_to_none=True)

    def release(self) -> None:
        """Noise the sum, divide it by the public constant and step, also when nobody was drawn."""
        for parameter in self.params:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        self.step()
        self.zero_grad(set_to_none=True)

    def clipped_sum(self) -> list[Tensor]:
        """Return the sum before noise by parameter: secret, for checks only."""
        return self._by_parameter(self._exact().double() * (GRID * self.max_grad_norm))

    def clip_and_accumulate(self) -> None:
        """Scale each patient to the bound, round to the grid and add up exactly."""
        samples = self.grad_samples
        count = len(samples[0])
        if count == 0:
            return
        if count == 1:  # the loop comes here for every patient: one long row, not many short ones
            samples = [torch.cat([sample.flatten() for sample in samples])[None]]
        factor = clip_factor(patient_norms(samples), self._bound, self.plan.clipping)
        factor /= GRID * self.max_grad_norm
        if self._waiting + count > EXACT_IN_FLOAT32:
            self._total, self._waiting = self._exact().double(), 0
            self._sum.zero_()
        if self._total is not None and count > EXACT_IN_FLOAT32:
            add_in_units(self._by_parameter(self._total), samples, factor)
        else:
            add_in_units([self._sum] if count == 1 else self._parts, samples, factor)
            self._waiting += count

    def add_noise(self) -> None:
        """Add noise of sigma x C to each coordinate of the sum."""
        noised = self._released if len(self._released) else torch.empty_like(self._sum)
        for start in range(0, len(noised), _CHUNK):
            exact = self._exact(slice(start, start + _CHUNK)).double()
            draw = self._noise.gaussian((len(exact),), self.noise_multiplier / GRID)
            draw = draw.to(exact.device)
            noised[start : start + _CHUNK] = draw.add_(exact).mul_(GRID * self.max_grad_norm)
        for parameter, part in zip(self.params, self._by_parameter(noised), strict=True):
            parameter.grad = part
        self._released, self._total, self._waiting = noised, None, 0
        self._sum.zero_()

    def scale_grad(self) -> None:
        """Divide by the public constant; Opacus' own looks at all parameters for each of them."""
        self._released /= self.expected_batch_size

    def _exact(self, place: slice = _EVERYWHERE) -> Tensor:
        waiting = self._sum[place]
        return waiting if self._total is None else self._total[place] + waiting

    def _by_parameter(self, row: Tensor) -> list[Tensor]:
        parts = torch.split(row, self._sizes)
        return [part.view_as(p) for part, p in zip(parts, self.params, strict=True)]
