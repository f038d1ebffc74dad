"""A private round: check the network, charge the ledger, take noised steps."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from client.privacy.patient_gradients import Backend, Objective
from client.privacy.private_step import patient_optimizer, private_step
from client.training.local_model import LocalModel
from client.training.training_site import Guard, Site
from common.config.run_config import PatientPrivacy, RunConfig
from common.messages.wire import TrainRequest
from common.platform.errors import PrivacyError
from common.privacy.noise_calibration import delta_of, make_plan
from common.privacy.plan import PrivacyPlan, Spend

#: Networks that were checked, and how their gradients are made: once a run, not once a round.
_CHECKED: WeakKeyDictionary[nn.Module, Backend] = WeakKeyDictionary()


def plan_of(
    site: Site, local_model: LocalModel, privacy: PatientPrivacy, guard: Guard
) -> PrivacyPlan:
    """Return the site's plan for the whole run.

    Its epsilon holds what everybody is charged for beside training. Where the run agreed on a
    number of patients, no field of it depends on who is here.
    """
    patients = counted(site, local_model.config)
    return make_plan(
        privacy,
        local_model.config.training,
        patients,
        patients * privacy.sampling_rate,
        simulated=guard.noise.simulated,
        history=guard.beside,
    )


def counted(site: Site, config: RunConfig) -> int:
    """Return the training patients that a run's decisions and figures are made with.

    Those that a private run agreed on, and the site's own only where they are told anyway.
    ConfigurationError where a private run agreed on none.
    """
    if config.privacy == "none":
        return len(site.train)
    agreed = config.privacy.agreed(site.name)
    return len(site.train) if agreed == "declared" else agreed


def told_at(site: Site, config: RunConfig, guard: Guard) -> float:
    """Return the delta at which a run's claims are told: its own, or the site's without privacy.

    One delta for all that a run is told, so that it is within its epsilon in any order or in none.
    """
    privacy = config.privacy
    return guard.limit.delta if privacy == "none" else delta_of(privacy, counted(site, config))


def train_privately(
    site: Site, local_model: LocalModel, request: TrainRequest, optimizer: torch.optim.Optimizer
) -> Spend:
    """Charge, then take the round's noised steps.

    UnsafeModel and BudgetExceeded leave everything as it was: nothing charged, nothing released.
    """
    config, guard = local_model.config, site.guard
    privacy = config.privacy
    if privacy == "none" or guard is None:
        message = f"Site {site.name} has no ledger, so it cannot take part in a private run."
        raise PrivacyError(message)
    plan = plan_of(site, local_model, privacy, guard)
    objective = Objective(
        model=local_model.model,
        item_loss=local_model.item_loss,
        patients=site.train,
        images_per_patient=config.training.images_per_patient,
        patches=local_model.patches,
        apart=config.training.precision == "bf16" or config.model.checkpoint,
    )
    foreign = bool(config.extension_names({"networks", "tasks", "losses"}))
    backend = checked_backend(objective, plan, guard, foreign=foreign)
    spend = charge(request, plan, guard)
    noise = guard.noise.of_round(request.run, request.round)
    private = patient_optimizer(optimizer, plan, noise)
    for _ in range(plan.steps_per_round):
        private_step(objective, private, noise, backend)
    return spend


def charge(request: TrainRequest, plan: PrivacyPlan, guard: Guard) -> Spend:
    """Charge this round's steps durably, before the first of them is taken."""
    this_round = replace(plan.mechanism, steps=plan.steps_per_round)
    return guard.charge(request, "train", this_round, plan.delta)


def checked_backend(
    objective: Objective, plan: PrivacyPlan, guard: Guard, *, foreign: bool = False
) -> Backend:
    """Return how gradients are made, after the network was checked; UnsafeModel if it fails."""
    model = objective.model
    if model not in _CHECKED:
        # Imported here: they load Opacus, which runs without privacy do without.
        from client.privacy.gradient_backend import backend_of
        from client.privacy.model_guard import check_model

        check_model(objective, plan, guard.noise, foreign=foreign)
        parameters = [p for p in model.parameters() if p.requires_grad]
        _CHECKED[model] = backend_of(
            objective, parameters, simulated=guard.noise.simulated, foreign=foreign
        )
    return _CHECKED[model]
