"""Measuring a model at a site: scores stay here, mergeable counts may leave."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from client.site import Site
from client.workbench import Workbench
from common.errors import BudgetExceeded, CohortError, PrivacyError
from common.metrics import (
    Statistics,
    count_sensitivity,
    with_count_noise,
    withhold_small_cells,
)
from common.privacy.plan import Mechanism, Spend
from common.sample import Patients, patient_mean, take
from common.tasks.task import Scores
from common.wire import EvaluationRequest, Refusal, RefusalReason, SiteReport

#: Items that go through the network at once; a speed and memory choice, results are the same.
_CHUNK_ITEMS = 64


def score(bench: Workbench, patients: Patients) -> Scores:
    """Return predictions, by patient or by image as the configuration says.

    CohortError without patients: there is nothing to say of them.
    """
    if len(patients) == 0:
        message = (
            "A hospital has 0 patients in a split that is to be measured, expected at least 1. "
            "Look at cohort.split and the hospital's labels, or leave the hospital out."
        )
        raise CohortError(message)
    bench.model.eval()
    try:
        with torch.inference_mode():
            parts = [_score_chunk(bench, patients, chunk) for chunk in _chunks(patients)]
    finally:
        bench.model.train()
    return Scores(
        prediction=torch.cat([p.prediction for p in parts]),
        target=torch.cat([p.target for p in parts]),
        loss=torch.cat([p.loss for p in parts]),
        owner=None if _by_patient(bench) else patients.patient,
    )


def _by_patient(bench: Workbench) -> bool:
    """Return whether a patient's items are averaged into one row of scores."""
    return bench.config.evaluation.unit == "patient" and bench.config.task.kind != "segmentation"


def _chunks(patients: Patients) -> list[Tensor]:
    """Return item positions in chunks that never part a patient's items."""
    chunks: list[Tensor] = []
    start = 0
    owner = patients.patient
    while start < len(owner):
        end = min(start + _CHUNK_ITEMS, len(owner))
        while end < len(owner) and owner[end] == owner[end - 1]:
            end += 1
        chunks.append(torch.arange(start, end))
        start = end
    return chunks


def _score_chunk(bench: Workbench, patients: Patients, items: Tensor) -> Scores:
    batch = take(patients, items)
    output = bench.model(batch.image, batch.table)
    target = batch.target
    if _by_patient(bench):
        output = patient_mean(output, batch)
        # Items of one patient share its target; labels that disagree never got this far.
        first = torch.searchsorted(batch.patient, torch.arange(len(output)))
        target = batch.target[first]
    return Scores(
        prediction=bench.task.predict(output),
        target=target,
        loss=bench.task.item_loss(output, target),
    )


def site_statistics(bench: Workbench, patients: Patients) -> Statistics:
    """Return what may leave of one split: small cells are withheld before anyone sees them."""
    scores = score(bench, patients)
    rules = bench.config.evaluation
    counted = bench.task.statistics(scores, rules)
    # Noise hides small cells; withholding them as well would tell where they are.
    return counted if rules.count_noise > 0 else withhold_small_cells(counted, rules.smallest_cell)


def noised(
    site: Site, request: EvaluationRequest, statistics: Statistics
) -> tuple[Statistics, Spend]:
    """Return statistics with Gaussian noise on every count, charged before they exist.

    PrivacyError without a ledger, BudgetExceeded when it does not allow the charge.
    """
    guard, spread = site.guard, request.config.evaluation.count_noise
    if guard is None:
        message = f"Site {site.name} has no ledger to charge evaluation.count_noise={spread} to."
        raise PrivacyError(message)
    sensitivity = count_sensitivity(statistics)
    mechanism = Mechanism(
        noise_multiplier=spread / sensitivity, sampling_rate=1.0, steps=1, clip_norm=sensitivity,
        divisor=1.0,
    )  # fmt: skip
    name = f"{request.run}/{request.split}"
    delta = guard.limit.delta
    spend = guard.ledger.charge(guard.cohort, name, request.round, mechanism, guard.limit, delta)
    noise = guard.noise.of_round(name, request.round)
    released = with_count_noise(statistics, spread, noise)
    return released, replace(spend, simulated_noise=guard.noise.simulated)


def evaluate_round(
    site: Site, bench: Workbench, request: EvaluationRequest
) -> SiteReport | Refusal:
    """Measure the request's weights, with the site's own layers where it keeps some."""
    patients = site.validation if request.split == "validation" else site.test
    if len(patients) < request.config.evaluation.smallest_cell:
        return Refusal(
            run=request.run, round=request.round, site=site.name,
            reason=RefusalReason.TOO_FEW_PATIENTS,
        )  # fmt: skip
    kept = site.memory.recall(request.run, request.round)
    bench.load(request.weights, kept)
    statistics, spend = site_statistics(bench, patients), None
    if request.config.evaluation.count_noise > 0:
        try:
            statistics, spend = noised(site, request, statistics)
        except BudgetExceeded:
            return Refusal(
                run=request.run, round=request.round, site=site.name, reason=RefusalReason.BUDGET
            )
    return SiteReport(
        run=request.run, round=request.round, site=site.name, statistics=statistics, spend=spend
    )
