"""Request handler of a site: answers a request with a standing, an update, a report or a refusal.

Whether the site takes part at all was decided before (client/governance/request_admission.py); here
its patients are loaded once a run, and each request becomes one call of what a simulation calls,
too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.quality_refusals import CohortPaths, images_left_out
from client.cohort.split import site_key
from client.cohort_statistics.description import (
    DescribableCohort,
    Telling,
    describe,
    facts_of,
    used_and_left_out,
)
from client.cohort_statistics.run_costs import largest_claim, run_costs, told_of_everybody
from client.governance.records_check import SiteRecords
from client.inference.calibration.trained_on import note_trained
from client.privacy.composition import binding, run_epsilon
from client.privacy.ledger import COHORT, Ledger, Limit
from client.privacy.repeated_answers import Answers, AnswersInFile
from client.series.fitting import Aliases
from client.site.cache import Cache
from client.site.quality_section import QualityRules
from client.site.withdrawals import withdrawn_in
from client.training.cohort_features import site_of, with_features
from client.training.evaluation import evaluate_round
from client.training.kept_between_rounds import MemoryInFolder
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.personal_models import own_beside_shared
from client.training.private_round import counted, plan_of
from client.training.step_timing import round_seconds
from client.training.training_site import Guard, Site, bound_to
from common.config.run_config import RunConfig
from common.data.kept_items import ItemGone
from common.messages.wire import (
    Answer,
    EvaluationRequest,
    Proposal,
    Refusal,
    RefusalReason,
    Request,
    Standing,
    StatisticsRequest,
    TrainRequest,
)
from common.platform.durable_files import is_for_want_of_room
from common.platform.errors import (
    CohortError,
    ConfigurationError,
    RecordsLost,
    RunBegun,
    UnsafeModel,
)
from common.privacy.accounting import epsilon_of
from common.privacy.noise import ChaChaNoise
from common.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class SiteContext:
    """Where a site's patients and its own records are, and what its policy says of them."""

    name: str
    data: Path
    labels: Path
    cache: Path
    memory: Path
    ledger: Path
    withdrawals: Path
    index: Path
    quality: QualityRules
    aliases: Aliases = field(default_factory=dict)  # the site's own words for series
    telling: Telling
    largest_epsilon: float  # of all runs on these patients together
    cohort_delta: float
    tell_patients: bool | Literal["without_privacy"]
    device: torch.device
    identity_key: Path  # splits the patients, in every run alike
    answers: Path | None = None  # where it is kept what was told; None: beside the ledger
    trained: Path | None = None  # where it is noted whom runs trained on; None: nowhere
    records: SiteRecords | None = None  # None: of patients who are made up
    runs_at_once: int | None = None  # that the site serves for one coordinator; None: any number


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run's patients and network, kept from round to round."""

    site: Site
    local_model: LocalModel
    withdrawn: frozenset[str] = frozenset()  # who was left out
    described: DescribableCohort = field(default_factory=DescribableCohort)
    doubt: str = ""  # why it cannot learn here though it goes on


class RequestHandler:
    """Loads what a request needs, once a run."""

    def __init__(self, context: SiteContext, tell: Callable[[str], None]) -> None:
        self._context = context
        self._tell = tell
        self._key: tuple[str, int] | None = None
        self._loaded: Loaded | None = None

    def answer(self, request: Request) -> Answer:
        """Answer a request that the site's policy allows; faults a run can go on without too.

        CohortError, ConfigurationError and UnsafeModel become a refusal whose reason names no
        patient; every other error is the site's own affair and is raised.

        Guarantee: no answer is returned that a patient took part in whose withdrawal was durable
        by then. One that was under way is thrown away and given again without them; a private
        round is then charged twice, since what was charged stays charged.
        """
        try:
            if self._context.records is not None:
                self._context.records.check()
            self._begin(request)
            while True:
                loaded = self._load(request.config, request.seed)
                answer = self._answer_or_none(loaded, request)
                if answer is not None and self._withdrawn() <= loaded.withdrawn:
                    return answer
                self._tell("A patient was withdrawn meanwhile: the answer is given without them.")
        except RecordsLost as error:
            self._tell(str(error))
            return refusal(request, self._context.name, RefusalReason.RECORDS)
        except RunBegun as error:
            self._tell(str(error))
            return refusal(request, self._context.name, RefusalReason.BEGUN)
        except (CohortError, ConfigurationError, UnsafeModel) as error:
            if is_for_want_of_room(error, self._context.ledger.parent):
                raise
            self._tell(f"Run {request.run} cannot use this site: {error}")
            return refusal(request, self._context.name, RefusalReason.CONFIGURATION)

    def _begin(self, request: Request) -> None:
        """Bind a run's name to what is first released under it; RunBegun for anything else."""
        split = site_key(self._context.identity_key).fingerprint()
        Ledger(self._context.ledger).check_begun(request.run, bound_to(request, split))
        if isinstance(request, Proposal):
            return
        answers = answers_of(self._context, frozenset())
        if answers.begin(request.run, request.config, request.seed):
            return
        message = (
            f"Run {request.run} is asked for with another configuration or seed than it was "
            "begun with here. The coordinator must begin a run of another name."
        )
        raise RunBegun(message)

    def _answer_or_none(self, loaded: Loaded, request: Request) -> Answer | None:
        """Answer; None where images went away with a patient who was withdrawn meanwhile."""
        try:
            return self._answer(loaded, request)
        except ItemGone:
            self._loaded = None  # the next request prepares what is missing
            if self._withdrawn() <= loaded.withdrawn:
                raise
            return None

    def _answer(self, loaded: Loaded, request: Request) -> Answer:
        match request:
            case Proposal():
                return self._standing(loaded, request)
            case StatisticsRequest():
                return describe(loaded.site, loaded.described, request, self._context.telling)
            case TrainRequest():
                self._note_trained(loaded, request)
                return train_round(loaded.site, loaded.local_model, request)
            case EvaluationRequest():
                report = evaluate_round(loaded.site, loaded.local_model, request)
                if request.split == "test":
                    self._tell_of_own_model(loaded, request)
                return report

    def _note_trained(self, loaded: Loaded, request: TrainRequest) -> None:
        """Note whom the run trains on, before the first step; who only asks leaves no file."""
        if self._context.trained is not None:
            fingerprint, patients = request.config.fingerprint(), loaded.site.train.pseudonyms
            note_trained(self._context.trained, fingerprint, request.seed, patients)

    def _withdrawn(self) -> frozenset[str]:
        return withdrawn_in(self._context.withdrawals)

    def _load(self, config: RunConfig, seed: int) -> Loaded:
        key = (config.fingerprint(), seed)
        known = self._loaded is not None and self._withdrawn() <= self._loaded.withdrawn
        if self._loaded is None or self._key != key or not known:
            self._loaded, self._key = None, None  # before the next: one run in memory at a time
            self._tell(f"Loading the cohort of run {config.name}.")
            self._loaded, self._key = load(self._context, config, seed), key
            self._tell(used_and_left_out(config.name, self._loaded.described))
            if self._loaded.doubt:
                self._tell(f"{self._loaded.doubt} It goes on, as a refusal would tell.")
            self._tell_of_count(self._loaded.site, config)
        return self._loaded

    def _standing(self, loaded: Loaded, request: Proposal) -> Standing | Refusal:
        site, config = loaded.site, request.config
        patients = counted(site, config)
        if patients < config.cohort.smallest_cohort:
            return refusal(request, site.name, RefusalReason.TOO_FEW_PATIENTS)
        epsilon = left = None
        if config.privacy != "none" and site.guard is not None:
            guard = site.guard
            plan = plan_of(site, loaded.local_model, config.privacy, guard)
            costs = run_costs(request, plan, guard)
            # What this very run has been charged already is part of what it may cost.
            own = (request.run, bound_to(request, guard.split))
            before = guard.ledger.charges(guard.cohort, without=own)
            epsilon = run_epsilon(costs, request.run, plan.delta)
            left = guard.limit.epsilon - epsilon_of(binding([*before, *costs]), guard.limit.delta)
            if left < 0:
                return refusal(request, site.name, RefusalReason.BUDGET)
        tells = _tells(self._context, config)
        return Standing(
            run=request.run,
            round=request.round,
            site=site.name,
            patients=patients if tells else None,
            epsilon=epsilon,
            epsilon_left=left,
            seconds=round_seconds(loaded.local_model, site, patients) if tells else None,
            runs_at_once=self._context.runs_at_once,
        )

    def _tell_of_own_model(self, loaded: Loaded, request: EvaluationRequest) -> None:
        """Say here, and nowhere else, what Ditto's model of this site is worth."""
        said = own_beside_shared(loaded.site, loaded.local_model, request)
        if said is not None:
            self._tell(said)

    def _tell_of_count(self, site: Site, config: RunConfig) -> None:
        """Say here, and nowhere else, when a run counts on many more patients than there are."""
        expected = counted(site, config)
        if len(site.train) < config.cohort.smallest_cohort <= expected:
            self._tell(
                f"{len(site.train)} patients train here; run {config.name} counts on {expected}. "
                "It goes on, as a refusal would tell. Their privacy holds; the model learns less."
            )


def _tells(context: SiteContext, config: RunConfig) -> bool:
    """Return whether the number of patients leaves: what was agreed in public always may."""
    if config.privacy != "none" and not config.privacy.declares(context.name):
        return True
    if context.tell_patients == "without_privacy":
        return config.privacy == "none"
    return context.tell_patients


def refusal(request: Request, site: str, reason: RefusalReason) -> Refusal:
    """Return a site's no to a request."""
    return Refusal(run=request.run, round=request.round, site=site, reason=reason)


def answers_of(context: SiteContext, withdrawn: frozenset[str]) -> Answers:
    """Return where the site keeps what it told, without those who were withdrawn."""
    return AnswersInFile(context.answers or context.ledger.with_name("answers.db"), withdrawn)


def load(context: SiteContext, config: RunConfig, seed: int) -> Loaded:
    """Read a site's patients for a run and build its network.

    CohortError when nobody can be used.
    """
    task = task_of(config.task)
    cache = Cache(context.cache, context.index)
    with cache.in_use():
        gone = withdrawn_in(context.withdrawals)
        paths = CohortPaths(
            data=context.data, labels=context.labels, index=context.index, cache=context.cache
        )
        left_out = LeftOut(withdrawn=gone, images=images_left_out(paths, config, context.quality))
        cohort = load_cohort(
            context.data, config, task, cache, context.labels, left_out, aliases=context.aliases
        )
        if config.model.network == "frozen_features":
            cohort = with_features(cohort, config, cache)
    cohort = replace(cohort, name=context.name)
    key = site_key(context.identity_key)
    site = site_of(cohort, config, key)
    guard = Guard(
        ledger=Ledger(context.ledger),
        limit=Limit(
            epsilon=context.largest_epsilon, delta=context.cohort_delta, run=largest_claim(config)
        ),
        cohort=COHORT,
        noise=ChaChaNoise(),
        beside=told_of_everybody(config, context.telling),
        split=key.fingerprint(),
    )
    site = replace(
        site, guard=guard, memory=MemoryInFolder(context.memory), answers=answers_of(context, gone)
    )
    described = DescribableCohort(
        paths=paths, facts=facts_of(cohort, site, config), images=config.cohort.in_dicom
    )
    local_model = open_local_model(config, seed, context.device)
    return Loaded(
        site=site, local_model=local_model, withdrawn=gone, described=described, doubt=cohort.doubt
    )
