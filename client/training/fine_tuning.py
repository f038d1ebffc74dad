"""Personalisation by fine-tuning: some more steps on a site's own patients."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from client.privacy.isolation import Isolation
from client.training.batches import batches
from client.training.evaluation import score
from client.training.local_model import LocalModel
from client.training.local_round import make_optimizer
from client.training.training_site import Site, data_order, repeatable_dropout
from common.config.run_config import Personalisation
from common.data.weights import Weights

#: How often the site looks at its validation patients while it tunes.
_LOOKS = 5


def fine_tune(
    site: Site, local_model: LocalModel, shared: Weights, rules: Personalisation, seed: int
) -> dict[str, Tensor]:
    """Return the weights, among the shared ones and some tuned ones, that validate best here.

    Without validation patients the last are returned. Steps are those of `training` at the
    rate of `personalisation`; FedProx, SCAFFOLD and augmentation are for rounds alone.
    """
    local_model.load(shared)
    # What code of others remembers of these patients is not there when others are measured.
    tuning = Isolation(local_model.model, local_model.task, weights_stay=True)
    with repeatable_dropout(seed, site.name, 0):
        steps = functools.partial(_best_of, site, local_model, shared, rules, seed)
        return tuning.alone(steps, torch.initial_seed())


def _best_of(
    site: Site, local_model: LocalModel, shared: Weights, rules: Personalisation, seed: int
) -> dict[str, Tensor]:
    """Take the steps and look a few times on the way."""
    best, best_loss = dict(shared), _validation_loss(site, local_model)
    every = max(1, rules.steps // _LOOKS)
    optimizer = _optimizer(local_model, rules)
    for number in _steps(site, local_model, optimizer, rules.steps, seed):
        if number % every != 0 and number != rules.steps:
            continue
        loss = _validation_loss(site, local_model)
        if loss < best_loss or len(site.validation) == 0:
            best_loss = loss
            best = {n: v.clone() for n, v in local_model.trained.items()}
    return best


def _optimizer(local_model: LocalModel, rules: Personalisation) -> torch.optim.Optimizer:
    """Return the run's optimiser at the rate of fine-tuning, a tenth where none is given."""
    training = local_model.config.training
    rate = rules.learning_rate or training.learning_rate / 10
    tuned = training.model_copy(update={"learning_rate": rate, "schedule": "constant"})
    return make_optimizer(local_model.model, tuned, 1)


def _steps(
    site: Site, local_model: LocalModel, optimizer: torch.optim.Optimizer, steps: int, seed: int
) -> Iterator[int]:
    """Take step after step and yield the number of each when it is done."""
    training = local_model.config.training
    drawn = batches(
        site.train,
        training.batch_patients,
        training.images_per_patient,
        steps,
        data_order(seed, site.name, 0),
        local_model.patches,
    )
    for number, batch in enumerate(drawn, 1):
        optimizer.zero_grad(set_to_none=True)
        local_model.add_gradient(batch)
        optimizer.step()
        yield number


def _validation_loss(site: Site, local_model: LocalModel) -> float:
    """Return the mean validation loss; infinite where it is no number, or without patients."""
    if len(site.validation) == 0:
        return math.inf
    loss = float(score(local_model, site.validation).loss.mean())
    return math.inf if math.isnan(loss) else loss
