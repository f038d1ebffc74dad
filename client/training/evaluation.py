"""Evaluation of a model at a site: scores stay, mergeable counts may leave."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from client.privacy.composition import charged_as
from client.privacy.isolation import Isolation, seed_of
from client.privacy.repeated_answers import AnotherRequest
from client.training.local_model import LocalModel
from client.training.private_round import told_at
from client.training.training_site import Site
from common.config.measured_rounds import is_measured
from common.data.kept_items import Items
from common.data.sample import Patients, patient_mean, take
from common.data.volumes import Volumes, are_volumes
from common.messages.wire import EvaluationRequest, Refusal, RefusalReason, SiteReport
from common.metrics.small_cells import withhold_small_cells
from common.metrics.statistics import Statistics, count_sensitivity, with_count_noise
from common.models.bags import answered
from common.models.windows import slid
from common.platform.errors import BudgetExceeded, CohortError, PrivacyError
from common.privacy.plan import Spend, count_mechanism
from common.tasks.task import Outlining, Scores, no_scores

#: Items that go through the network at once; a speed and memory choice, results are the same.
_CHUNK_ITEMS = 64


def score(local_model: LocalModel, patients: Patients, *, apart: bool = False) -> Scores:
    """Return predictions, by patient or by image as the configuration says.

    `apart` scores one patient after another, so that no score depends on who else is there. Where
    the network holds code of others, it is always so, and each patient meets it as the first would.
    CohortError without patients: there is nothing to say of them.
    """
    if len(patients) == 0:
        message = (
            "A hospital has 0 patients in a split that is to be measured, expected at least 1. "
            "Look at cohort.split and the hospital's labels, or leave the hospital out."
        )
        raise CohortError(message)
    local_model.model.eval()
    try:
        each = Isolation(local_model.model, local_model.task)
        with torch.inference_mode():
            chunks = _chunks(patients, 1 if apart or each.needed else _CHUNK_ITEMS)
            parts = [
                each.alone(
                    functools.partial(_score_chunk, local_model, patients, chunk),
                    seed_of(0, patients.pseudonyms[int(patients.patient[chunk[0]])]),
                )
                for chunk in chunks
            ]
    finally:
        local_model.model.train()
    return Scores(
        prediction=torch.cat([p.prediction for p in parts]),
        target=torch.cat([p.target for p in parts]),
        loss=torch.cat([p.loss for p in parts]),
        owner=None if _by_patient(local_model) else patients.patient,
    )


def _by_patient(local_model: LocalModel) -> bool:
    """Return whether a patient's items are averaged into one row of scores."""
    return local_model.config.evaluation.unit == "patient" and not local_model.config.task.outlines


def _chunks(patients: Patients, items: int) -> list[Tensor]:
    """Return item positions in chunks of so many that never part a patient's items."""
    chunks: list[Tensor] = []
    start = 0
    owner = patients.patient
    while start < len(owner):
        end = min(start + items, len(owner))
        while end < len(owner) and owner[end] == owner[end - 1]:
            end += 1
        chunks.append(torch.arange(start, end))
        start = end
    return chunks


def _score_chunk(local_model: LocalModel, patients: Patients, items: Tensor) -> Scores:
    if are_volumes(patients.image):
        return _score_volumes(local_model, patients, items)
    batch = take(patients, items)
    found, of = answered(local_model.model, batch)
    # A copy: code of others may answer with memory that it uses again.
    output, target = found.clone(), of.target
    if _by_patient(local_model):
        output = patient_mean(output, of)
        # Items of one patient share its target; labels that disagree never got this far.
        first = torch.searchsorted(of.patient, torch.arange(len(output)))
        target = of.target[first]
    return Scores(
        prediction=local_model.task.predict(output),
        target=target,
        loss=local_model.task.item_loss(output, target),
    )


def _score_volumes(local_model: LocalModel, patients: Patients, items: Tensor) -> Scores:
    """Return what is measured of each volume, whose maps are of extents of their own."""
    task, image, target = local_model.task, patients.image, patients.target
    assert isinstance(task, Outlining)  # noqa: S101 - patches go with outlines alone
    assert isinstance(image, Volumes)  # noqa: S101 - whoever calls asked
    assert isinstance(target, Volumes)  # noqa: S101 - as its images
    found: list[Scores] = []
    for place in items.tolist():
        table, truth = patients.table[place][None], target.whole(place)[None]
        ask = functools.partial(_asked, local_model, table)
        output = slid(ask, image.whole(place)[None], image.patch)
        loss = task.item_loss(output, truth)
        maps = Scores(prediction=task.predict(output), target=truth, loss=loss)
        found.append(task.measured(maps))
    return Scores(
        prediction=torch.cat([one.prediction for one in found]),
        target=torch.cat([one.target for one in found]),
        loss=torch.cat([one.loss for one in found]),
    )


def _asked(local_model: LocalModel, table: Tensor, image: Tensor) -> Tensor:
    output: Tensor = local_model.model(image, table).clone()
    return output


def site_statistics(local_model: LocalModel, patients: Patients) -> Statistics:
    """Return what may leave of one split: small cells are withheld before anyone sees them."""
    rules = local_model.config.evaluation
    if rules.count_noise > 0:
        # Noise hides small cells; withholding them as well would tell where they are.
        return local_model.task.statistics(scores_apart(local_model, patients), rules)
    counted = local_model.task.statistics(score(local_model, patients), rules)
    return withhold_small_cells(counted, rules.smallest_cell)


def scores_apart(local_model: LocalModel, patients: Patients) -> Scores:
    """Return scores of which each is a function of one patient alone, also of nobody.

    How many items go through at once decides the last bits of a product, and crafted weights
    make last bits large: one patient more would move the scores of others.
    """
    if len(patients) == 0:
        return no_scores(score(local_model, _somebody(patients)))
    return score(local_model, patients, apart=True)


def _somebody(like: Patients) -> Patients:
    """Return one made-up patient of zeros, scored for the form alone."""

    def zero(value: Items) -> Tensor:
        return torch.zeros((1, *value.shape[1:]), dtype=value.dtype)

    return Patients(
        image=zero(like.image),
        table=zero(like.table),
        target=zero(like.target),
        patient=torch.zeros(1, dtype=torch.int64),
        pseudonyms=("nobody",),
    )


def evaluate_round(
    site: Site, local_model: LocalModel, request: EvaluationRequest
) -> SiteReport | Refusal:
    """Measure the request's weights, with the site's own layers where it keeps some.

    Guarantee of a private run: nothing is told of its patients but counts with the noise that
    was charged, once for each round and split that the configuration has measured. What is told
    or refused depends on no patient beside.

        no evaluation.count_noise                    METRICS
        a round or split that it does not measure    METRICS
        another request for the same round, split    ANSWERED
        the same request again                       the same answer, nothing is charged
        a noise so small that it hides nothing       BUDGET
        nobody, or few, in the split                 noised counts, as of many
    """
    config = request.config
    if config.evaluation.count_noise > 0:
        return _noised_report(site, local_model, request)
    if config.privacy != "none":
        return _refusal(site, request, RefusalReason.METRICS)
    patients = site.validation if request.split == "validation" else site.test
    if len(patients) < config.evaluation.smallest_cell:
        return _refusal(site, request, RefusalReason.TOO_FEW_PATIENTS)
    local_model.load(request.weights, site.memory.recall(request.run, request.round))
    return SiteReport(
        run=request.run,
        round=request.round,
        site=site.name,
        statistics=site_statistics(local_model, patients),
    )


def _noised_report(
    site: Site, local_model: LocalModel, request: EvaluationRequest
) -> SiteReport | Refusal:
    """Charge, draw, keep, answer: in this order, and once."""
    try:
        told = site.answers.find(request)
    except AnotherRequest:
        return _refusal(site, request, RefusalReason.ANSWERED)
    if isinstance(told, SiteReport):
        return told
    if not is_measured(request.config, request.round, request.split):
        return _refusal(site, request, RefusalReason.METRICS)
    patients = site.validation if request.split == "validation" else site.test
    private = request.config.privacy != "none"
    kept = {} if private else site.memory.recall(request.run, request.round)
    local_model.load(request.weights, kept)
    try:
        statistics, spend = noised(site, request, site_statistics(local_model, patients))
    except BudgetExceeded:
        return _refusal(site, request, RefusalReason.BUDGET)
    report = SiteReport(
        run=request.run, round=request.round, site=site.name, statistics=statistics, spend=spend
    )
    site.answers.keep(request, report)
    return report


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
    mechanism = count_mechanism(count_sensitivity(statistics), spread)
    name = charged_as(request.run, request.split)
    delta = told_at(site, request.config, guard)
    spend = guard.charge(request, request.split, mechanism, delta)
    noise = guard.noise.of_round(name, request.round)
    released = with_count_noise(statistics, spread, noise)
    return released, spend


def _refusal(site: Site, request: EvaluationRequest, reason: RefusalReason) -> Refusal:
    return Refusal(run=request.run, round=request.round, site=site.name, reason=reason)
