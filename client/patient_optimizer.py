"""Opacus' optimiser with patients for samples: clip, add up, noise, divide, step.

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

from client.clipping import (
    EXACT_IN_FLOAT32,
    FLOAT_ERROR,
    clip_factor,
    exact_sum,
    in_units,
    patient_norms,
)
from common.privacy.noise import GRID, NoiseSource
from common.privacy.plan import PrivacyPlan


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types
    """A torch optimiser that sees nothing but the noised mean over patients.

    Guarantee: one patient, present or absent, changes the sum before noise by at most clip_norm.
    Contributions are whole multiples of GRID x clip_norm and are added without rounding, so this
    holds for the sum as the machine computes it, not only on paper.
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
        self._waiting = 0  # patients in summed_grad
        self._totals: list[Tensor] = []  # float64 sums of more than 16 patients, by parameter
        width = sum(parameter.numel() for parameter in self.params)
        # Rounding to the grid lengthens a vector by half a step a coordinate at most.
        self._bound = mechanism.clip_norm * (1.0 - 0.5 * math.sqrt(width) * GRID - FLOAT_ERROR)

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
        """Return the sum before noise in units of the clip norm: secret, for checks only."""
        return [total.double() * (GRID * self.max_grad_norm) for total in self._sums()]

    def clip_and_accumulate(self) -> None:
        """Scale each patient to the bound, round to the grid and add up exactly."""
        samples = self.grad_samples
        count = len(samples[0])
        if count == 0:
            return
        factor = clip_factor(patient_norms(samples), self._bound, self.plan.clipping)
        factor /= GRID * self.max_grad_norm
        if self._waiting + count > EXACT_IN_FLOAT32:
            self._flush()
        for place, (parameter, gradient) in enumerate(zip(self.params, samples, strict=True)):
            units = in_units(gradient, factor)
            if count > EXACT_IN_FLOAT32:
                self._totals[place] += exact_sum(units)
                continue
            total = units[0] if count == 1 else units.sum(0)
            held = parameter.summed_grad
            parameter.summed_grad = total if held is None else held.add_(total)
        self._waiting += count if count <= EXACT_IN_FLOAT32 else 0

    def add_noise(self) -> None:
        """Add noise of sigma x C to each coordinate of the sum."""
        for parameter, total in zip(self.params, self._sums(), strict=True):
            draw = self._noise.gaussian(tuple(total.shape), self.noise_multiplier / GRID)
            noised = draw.round_().add_(total).mul_(GRID * self.max_grad_norm)
            parameter.grad = noised.to(parameter.dtype)
            parameter.summed_grad = None
        self._totals, self._waiting = [], 0

    def _sums(self) -> list[Tensor]:
        if self._totals:
            self._flush()
            return self._totals
        return [
            torch.zeros_like(p) if p.summed_grad is None else p.summed_grad for p in self.params
        ]

    def _flush(self) -> None:
        """Move the float32 sums, still exact, into float64."""
        if not self._totals:
            self._totals = [torch.zeros_like(p, dtype=torch.float64) for p in self.params]
        for total, parameter in zip(self._totals, self.params, strict=True):
            if parameter.summed_grad is not None:
                total.add_(parameter.summed_grad)
                parameter.summed_grad = None
        self._waiting = 0
