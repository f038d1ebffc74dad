"""A site's private round: charge the ledger, then take noised steps."""

from __future__ import annotations

import torch

from client.private_step import Backend, draw_items, drawn_patients, private_gradient
from client.site import Guard, Site, data_order
from client.workbench import Workbench
from common.config import PatientPrivacy
from common.errors import PrivacyError
from common.privacy.accounting import make_plan
from common.privacy.plan import Mechanism, PrivacyPlan, Spend
from common.wire import TrainRequest

#: With fewer trained parameters than this, gradients of many patients fit side by side.
_SIDE_BY_SIDE = 200_000


def plan_of(site: Site, bench: Workbench, privacy: PatientPrivacy, guard: Guard) -> PrivacyPlan:
    """Return the site's plan for the whole run."""
    patients = len(site.train)
    agreed = privacy.public_patients.get(site.name, privacy.default_patients)
    divisor = float(patients if agreed == "declared" else agreed) * privacy.sampling_rate
    return make_plan(
        privacy, bench.config.training, patients, divisor, simulated=guard.noise.simulated
    )


def charge(site: Site, bench: Workbench, request: TrainRequest) -> tuple[PrivacyPlan, Spend]:
    """Charge this round's steps durably, before the first of them is taken."""
    privacy, guard = bench.config.privacy, site.guard
    if privacy == "none" or guard is None:
        message = f"Site {site.name} has no ledger, so it cannot take part in a private run."
        raise PrivacyError(message)
    plan = plan_of(site, bench, privacy, guard)
    whole = plan.mechanism
    this_round = Mechanism(
        noise_multiplier=whole.noise_multiplier, sampling_rate=whole.sampling_rate,
        steps=plan.steps_per_round, clip_norm=whole.clip_norm, divisor=whole.divisor,
    )  # fmt: skip
    spend = guard.ledger.charge(
        guard.cohort, request.run, request.round, this_round, guard.limit, plan.delta
    )
    return plan, spend


def train_privately(
    site: Site, bench: Workbench, request: TrainRequest, optimizer: torch.optim.Optimizer
) -> Spend:
    """Charge, then take the round's noised steps; BudgetExceeded leaves everything as it was."""
    plan, spend = charge(site, bench, request)
    guard = site.guard
    if guard is None:  # charge has raised already; this tells the type checker
        raise PrivacyError(site.name)
    spend = Spend(
        mechanism=spend.mechanism, run_epsilon=spend.run_epsilon,
        cohort_epsilon=spend.cohort_epsilon, delta=plan.delta,
        simulated_noise=guard.noise.simulated,
    )  # fmt: skip
    generator = data_order(request.seed, site.name, request.round)
    most = bench.config.training.images_per_patient
    backend = backend_for(bench)
    parameters = dict(bench.model.named_parameters())
    for _ in range(plan.steps_per_round):
        drawn = drawn_patients(len(site.train), plan.mechanism.sampling_rate, guard.noise)
        items = [draw_items(site.train, patient, most, generator) for patient in drawn]
        gradient = private_gradient(
            bench.model, bench.task.item_loss, site.train, items, plan, backend, guard.noise
        )
        for name, value in gradient.items():
            parameters[name].grad = value
        optimizer.step()
    return spend


def backend_for(bench: Workbench) -> Backend:
    """Return how gradients by patient are made; a matter of speed, the sum is the same."""
    trained = sum(p.numel() for p in bench.model.parameters() if p.requires_grad)
    return "vmap" if trained < _SIDE_BY_SIDE else "loop"
