"""Calibration line: from a network's output to the frequency that a site's patients had."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from client.inference.calibration.label_questions import Float
from client.inference.calibration.site_calibration import along
from common.config.run_config import RunConfig
from common.config.tasks.forms import IncidenceCurves, SurvivalCurve
from common.metrics.intervals import bootstrap_weights
from common.tasks import task_of

#: Calibrations of other patients that the interval is taken from.
DRAWS = 200
#: How far slope and offset are expected from 1 and 0 before any patient was seen; it keeps few
#: patients who all turned out as said from making the model certain.
_SLOPE_SPREAD, _OFFSET_SPREAD = 0.3, 0.5
_STEPS, _HALVINGS = 25, 20
#: A minimum is reached where a patient's loss changes by less.
_CLOSE = 1e-7


def fit_lines(output: Tensor, target: Tensor, config: RunConfig, seed: int) -> tuple[Float, Float]:
    """Return the line (1 + offsets,) of these patients, and those of bootstrap draws of them.

    output and target are (patients, ...). The loss is the task's own, so it is convex in slope
    and offsets; a survival curve keeps slope 1 and has one offset, which scales every hazard, and
    of several causes one each.
    """
    form = config.task.predicts
    start = torch.cat([torch.ones(1), torch.zeros(output.shape[1])])
    if isinstance(form, SurvivalCurve):
        start = torch.zeros(1)
    elif isinstance(form, IncidenceCurves):
        start = torch.zeros(len(form.causes))

    def line(free: Tensor) -> Tensor:
        if isinstance(form, IncidenceCurves):
            free = free.repeat_interleave(len(form.times))
        elif not isinstance(form, SurvivalCurve):
            return free
        return torch.cat([free.new_ones(1), free])

    task, outputs, targets = task_of(config.task), output.double(), target.double()

    def loss(free: Tensor, weight: Tensor) -> Tensor:
        found = line(free)
        misfit = task.item_loss(along(outputs, found[None]), targets) @ weight
        prior = ((found[0] - 1) / _SLOPE_SPREAD) ** 2 + (found[1:] / _OFFSET_SPREAD).square().sum()
        return misfit + prior / 2

    # Draws differ little from the whole, so they start there.
    whole = _minimum(loss, start.double()[None], torch.ones(1, len(output), dtype=torch.float64))
    drawn = torch.from_numpy(bootstrap_weights(len(output), DRAWS, seed))
    found = _minimum(loss, whole.expand(DRAWS, -1), drawn)
    return line(whole[0]).numpy(), torch.stack([line(free) for free in found]).numpy()


def _minimum(loss: Callable[[Tensor, Tensor], Tensor], start: Tensor, weights: Tensor) -> Tensor:
    """Return the minimum for each row of weights, (rows, free), by damped Newton steps."""
    found, close = start, _CLOSE * weights.shape[1]
    gradients, curvatures, losses = vmap(grad(loss)), vmap(hessian(loss)), vmap(loss)
    for _ in range(_STEPS):
        slope = gradients(found, weights)
        if float(slope.abs().max()) < close:
            break
        step = torch.linalg.solve(curvatures(found, weights), slope)
        before, part = losses(found, weights), torch.ones(len(found), 1, dtype=step.dtype)
        for _ in range(_HALVINGS):
            worse = losses(found - part * step, weights) > before
            if not worse.any():
                break
            part = torch.where(worse[:, None], part / 2, part)
        found = found - part * step
    return found
