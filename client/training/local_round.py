"""A local round: weights in, an update out; private rounds are charged first."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import nn

from client.privacy.isolation import Isolation
from client.training.batches import batches
from client.training.local_model import LocalModel
from client.training.private_round import counted, train_privately
from client.training.training_site import Site, data_order, repeatable_dropout
from common.algorithms.ditto import kept_personal, personal_weights
from common.algorithms.fedprox import add_proximal_pull
from common.algorithms.scaffold import correct_gradients, next_control
from common.config.learning_rate import learning_rate
from common.config.run_config import Training
from common.data.augmentation import augment
from common.data.named_augmentation import named_steps
from common.data.weights import Weights, difference, on_processor
from common.messages.wire import Refusal, RefusalReason, SiteUpdate, TrainRequest
from common.platform.errors import BudgetExceeded, ConfigurationError
from common.privacy.plan import Spend

#: Before the names of a site's control variates in its memory.
_CONTROL = "control/"
#: Of Ditto where a run says nothing: the middle of what its authors tried.
_PULL = 0.1


def train_round(site: Site, local_model: LocalModel, request: TrainRequest) -> SiteUpdate | Refusal:
    """Train one round at one site.

    With privacy on, the round's mechanism is durable in the ledger before the first step,
    so no update exists that was not charged. ConfigurationError for a request that names layers
    which are the site's own: their changes would leave with the update.
    """
    _check_shared(local_model, request)
    if counted(site, local_model.config) < local_model.config.cohort.smallest_cohort:
        return _refusal(site, request, RefusalReason.TOO_FEW_PATIENTS)
    rules = local_model.config.training
    kept = site.memory.recall(request.run, request.round - 1)
    local_model.load(request.weights, kept)
    own_control = _own_control(request, kept)
    try:
        spend = _train(site, local_model, request, own_control, pull=rules.proximal)
    except BudgetExceeded:
        return _refusal(site, request, RefusalReason.BUDGET)
    delta = difference(on_processor(local_model.trained), request.weights)
    own = {name: local_model.trained[name] for name in local_model.local}
    keep = {name: value.clone() for name, value in on_processor(own).items()}
    control_delta = None
    if request.control is not None:
        reach = learning_rate(rules, request.round) * rules.local_steps
        changed = next_control(own_control, request.control, delta, reach)
        control_delta = difference(changed, own_control)
        keep |= {f"{_CONTROL}{name}": value for name, value in changed.items()}
    config = local_model.config
    if config.personalisation.method == "ditto" and config.privacy == "none":
        keep |= kept_personal(_train_personal(site, local_model, request, kept))
    if keep:
        site.memory.keep(request.run, request.round, keep)
    return SiteUpdate(
        run=request.run,
        round=request.round,
        site=site.name,
        delta=delta,
        control_delta=control_delta,
        steps=rules.local_steps,
        spend=spend,
    )


def _check_shared(local_model: LocalModel, request: TrainRequest) -> None:
    asked = request.weights.keys() | (request.control or {}).keys()
    if own := sorted(asked & local_model.local):
        message = (
            f"The request brings weights of {', '.join(own)}, which personalisation.method="
            f"{local_model.config.personalisation.method} keeps at each site. Nothing was trained."
        )
        raise ConfigurationError(message)


def _train(
    site: Site, local_model: LocalModel, request: TrainRequest, own_control: Weights, *, pull: float
) -> Spend | None:
    """Take the round's steps; dropout draws from the round's own seed, as the batches do."""
    with repeatable_dropout(request.seed, site.name, request.round):
        if local_model.config.privacy == "none":
            # What code of others remembers of a round is not there in the next, nor in other runs.
            others = (local_model.task, local_model.transforms)
            round_ = Isolation(local_model.model, *others, weights_stay=True)
            steps = functools.partial(_train_plainly, site, local_model, request, own_control, pull)
            round_.alone(steps, torch.initial_seed())
            return None
        optimizer = make_optimizer(local_model.model, local_model.config.training, request.round)
        return train_privately(site, local_model, request, optimizer)


def _train_personal(
    site: Site, local_model: LocalModel, request: TrainRequest, kept: Weights
) -> Weights:
    """Take the round's steps with the site's own model (Ditto), on the same batches.

    After the shared model's update was made: nothing of it enters what leaves.
    """
    pull = local_model.config.personalisation.pull
    local_model.load(personal_weights(kept) or request.weights)
    alone = replace(request, control=None)
    _train(site, local_model, alone, {}, pull=_PULL if pull is None else pull)
    return local_model.trained


def _train_plainly(
    site: Site, local_model: LocalModel, request: TrainRequest, own_control: Weights, pull: float
) -> None:
    """Take the round's local steps without privacy, each pulled towards the round's weights."""
    rules = local_model.config.training
    generator = data_order(request.seed, site.name, request.round)
    optimizer = make_optimizer(local_model.model, rules, request.round)
    named = named_steps(local_model.config)
    for batch in batches(
        site.train,
        rules.batch_patients,
        rules.images_per_patient,
        rules.local_steps,
        generator,
        local_model.patches,
    ):
        image, target = batch.image, batch.target
        if rules.augment:
            outlines = local_model.config.task.outlines
            change = named or augment
            image, target = change(image, target, generator, outlines=outlines)
        if local_model.transforms is not None:
            image, target = local_model.transforms(image, target, generator)
        optimizer.zero_grad(set_to_none=True)
        local_model.add_gradient(batch._replace(image=image, target=target))
        add_proximal_pull(local_model.model, request.weights, pull)
        if request.control is not None:
            correct_gradients(local_model.model, own_control, request.control)
        optimizer.step()


def make_optimizer(model: nn.Module, rules: Training, round_number: int) -> torch.optim.Optimizer:
    """Return a fresh optimiser for one round's local steps."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate = learning_rate(rules, round_number)
    match rules.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, lr=rate, momentum=rules.momentum, weight_decay=rules.weight_decay
            )
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=rules.weight_decay)


def _own_control(request: TrainRequest, kept: Weights) -> Weights:
    """Return the site's control variate c_i; zero before its first round."""
    if request.control is None:
        return {}
    return {
        name: kept.get(f"{_CONTROL}{name}", torch.zeros_like(value))
        for name, value in request.control.items()
    }


def _refusal(site: Site, request: TrainRequest, reason: RefusalReason) -> Refusal:
    return Refusal(run=request.run, round=request.round, site=site.name, reason=reason)
