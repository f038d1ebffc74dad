"""Comparison of ways to train on the same patients, split the same way."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from common.config.run_config import RunConfig
from common.data.weights import Weights
from common.extensions.metrics import foreign_metrics
from common.metrics.intervals import Estimate
from common.tasks import patient_weights, task_of
from common.tasks.task import Scores
from server.rounds.run_rounds import RoundRecord
from simulations.comparison.arms import OWN_MODELS, Arm, ArmOutcome, ArmSetting, run_arm
from simulations.comparison.bare_loop import bare_round_seconds
from simulations.comparison.cohorts import sites_of
from simulations.comparison.unfinished import Unfinished, digest_of_patients, key_of_comparison
from simulations.comparison.verdicts import Tested, Verdict, concatenated, verdict
from simulations.engines.engine_choice import Engine


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All arms over all seeds; scores stay in this process, which owns every hospital."""

    config: RunConfig
    cohorts: tuple[SiteCohort, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    #: By arm and seed: each fold's outcome.
    outcomes: Mapping[tuple[Arm, int], tuple[ArmOutcome, ...]]
    #: By site; empty when local or federated was left out.
    verdicts: Mapping[str, Verdict]
    round_seconds: float
    bare_round_seconds: float
    seconds: float
    #: Hospitals that could not be used at all, and why.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Headline by hospital that trained alone, and hospital measured; empty: nobody asked for it.
    matrix: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Name of the headline metric."""
        return task_of(self.config.task).metric

    def site_scores(self, arm: Arm, seed: int, site: str) -> Scores:
        """Return the site's test scores, all folds together."""
        return concatenated([o.test[site] for o in self.outcomes[arm, seed]])

    def merged_scores(self, arm: Arm, seed: int) -> Scores:
        """Return every hospital's test patients, each scored by the model that hospital has."""
        return concatenated([self.site_scores(arm, seed, c.name) for c in self.cohorts])

    def metrics(self, scores: Scores, seed: int) -> dict[str, Estimate]:
        """Return all metrics of scores, bootstrapped by patient."""
        return exact_metrics(self.config, scores, seed)

    def site_value(self, arm: Arm, seed: int, site: str) -> float:
        """Return the headline metric on a site's own test patients; nan without any outcome."""
        return self.headline(self.site_scores(arm, seed, site))

    def is_mean_of_sites(self, arm: Arm) -> bool:
        """Return whether an arm's headline is the mean of the hospitals' own values.

        Scores of different models do not rank patients of different hospitals against each
        other, so where each hospital has a model of its own it is always the mean.
        """
        return self.config.evaluation.average == "sites" or arm in OWN_MODELS

    def value(self, arm: Arm, seed: int) -> float:
        """Return the headline metric: over all test patients, or the mean of the sites' own."""
        if self.is_mean_of_sites(arm):
            values = [self.site_value(arm, seed, c.name) for c in self.cohorts]
            known = [value for value in values if not math.isnan(value)]
            return statistics.fmean(known) if known else math.nan
        return self.headline(self.merged_scores(arm, seed))

    def headline(self, scores: Scores) -> float:
        """Return the headline metric of scores; nan of nobody."""
        patients = len(scores.loss)
        if patients == 0:
            return float("nan")
        task, whole = task_of(self.config.task), np.ones((1, patients))
        return float(task.draws(scores, whole, self.config.evaluation)[0])

    @property
    def shared_model(self) -> tuple[Arm, int, Weights] | None:
        """The model that a bundle holds: the shared one of the first seed; private if there is."""
        for arm in ("federated", "federated_dp", "pooled"):
            if (arm, self.seeds[0]) in self.outcomes:
                return arm, self.seeds[0], self.outcomes[arm, self.seeds[0]][0].weights
        return None


def exact_metrics(config: RunConfig, scores: Scores, seed: int) -> dict[str, Estimate]:
    """Return all metrics of scores, an extension's among them.

    Intervals are bootstrapped by patient: all images of one are drawn together.
    """
    rules, task = config.evaluation, task_of(config.task)
    found = task.exact(scores, patient_weights(scores, rules.bootstrap, seed), rules)
    if not rules.metrics:
        return found
    exact = rules.model_copy(update={"count_noise": 0.0})
    return found | foreign_metrics(config, task.statistics(scores, exact))


@dataclass(frozen=True, kw_only=True)
class ComparisonProgress:
    """Who is told of what while a comparison runs."""

    arm: Callable[[Arm, int, int], None] = lambda _arm, _seed, _fold: None
    round: Callable[[str, RoundRecord], None] = lambda _label, _record: None
    done: Callable[[Arm, int, int, ArmOutcome], None] = lambda _arm, _seed, _fold, _outcome: None
    kept: Callable[[Arm, int, int], None] = lambda _arm, _seed, _fold: None  # done before


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """What is compared, how often, and where."""

    arms: tuple[Arm, ...]
    seeds: Sequence[int]
    folder: Path  # for ledgers, and for what an interrupted comparison had done
    engine: Engine = field(default_factory=Engine)
    bare_loop: bool = True  # measure the same steps in plain PyTorch, which takes three rounds
    patients: str | None = None  # their `digest_of_patients`, where it was made already


def compare(
    config: RunConfig,
    cohorts: tuple[SiteCohort, ...],
    plan: ComparisonPlan,
    progress: ComparisonProgress,
) -> Comparison:
    """Run every arm on every seed and fold; each arm sees the very same splits.

    What an interrupted comparison of the same had done is not done again.
    """
    start = time.perf_counter()
    key = key_of_comparison(config, plan.patients or digest_of_patients(cohorts))
    unfinished = Unfinished(plan.folder / "unfinished", key)
    outcomes: dict[tuple[Arm, int], list[ArmOutcome]] = {}
    for seed in plan.seeds:
        for fold in range(config.cohort.split.folds or 1):
            setting = ArmSetting(
                config=config,
                seed=seed,
                fold=fold,
                folder=plan.folder,
                observe=progress.round,
                engine=plan.engine,
                unfinished=unfinished,
            )
            found = _arms_of_split(cohorts, plan.arms, setting, progress)
            for arm, outcome in found.items():
                outcomes.setdefault((arm, seed), []).append(outcome)
    kept = {key: tuple(several) for key, several in outcomes.items()}
    comparison = Comparison(
        config=config,
        cohorts=cohorts,
        seeds=tuple(plan.seeds),
        arms=plan.arms,
        outcomes=kept,
        verdicts=verdicts_of(config, cohorts, plan.arms, kept, plan.seeds),
        round_seconds=_round_seconds(kept),
        bare_round_seconds=_bare_round_seconds(config, cohorts, plan),
        seconds=time.perf_counter() - start,
    )
    unfinished.remove()
    return comparison


def _bare_round_seconds(
    config: RunConfig, cohorts: tuple[SiteCohort, ...], plan: ComparisonPlan
) -> float:
    if not plan.bare_loop:
        return math.nan
    return bare_round_seconds(sites_of(cohorts, config, plan.seeds[0], 0), config)


def _arms_of_split(
    cohorts: tuple[SiteCohort, ...],
    arms: Sequence[Arm],
    setting: ArmSetting,
    progress: ComparisonProgress,
) -> dict[Arm, ArmOutcome]:
    """Return every arm's outcome on one split of the patients."""
    seed, fold, unfinished = setting.seed, setting.fold, setting.unfinished
    sites = sites_of(cohorts, setting.config, seed, fold)
    found: dict[Arm, ArmOutcome] = {}
    for arm in arms:
        progress.arm(arm, seed, fold)
        outcome = unfinished.outcome(arm, seed, fold) if unfinished else None
        if outcome is not None:
            progress.kept(arm, seed, fold)
        else:
            outcome = run_arm(arm, sites, setting, found)
            progress.done(arm, seed, fold, outcome)
            if unfinished:
                unfinished.keep(arm, seed, fold, outcome)
        found[arm] = outcome
    return found


def verdicts_of(
    config: RunConfig,
    cohorts: Sequence[SiteCohort],
    arms: Sequence[Arm],
    outcomes: Mapping[tuple[Arm, int], tuple[ArmOutcome, ...]],
    seeds: Sequence[int],
) -> dict[str, Verdict]:
    """Return each hospital's verdict; none when local or federated was left out."""
    if not {"local", "federated"} <= set(arms):
        return {}
    folds = range(config.cohort.split.folds or 1)
    return {
        cohort.name: verdict(
            config,
            [
                [
                    Tested(
                        outcomes={arm: outcomes[arm, seed][fold] for arm in arms},
                        patients=tested_patients(config, cohort, seed, fold),
                    )
                    for fold in folds
                ]
                for seed in seeds
            ],
            cohort.name,
        )
        for cohort in cohorts
    }


def scores_items(config: RunConfig) -> bool:
    """Return whether a row of scores is an image and not a patient."""
    return config.evaluation.unit == "image" or config.task.outlines


def tested_patients(config: RunConfig, cohort: SiteCohort, seed: int, fold: int) -> tuple[str, ...]:
    """Return the pseudonym behind each row of `ArmOutcome.test` of a hospital."""
    test = cohort.split(config.cohort.split, simulated_key(seed), fold)["test"]
    if not scores_items(config):
        return test.pseudonyms
    return tuple(test.pseudonyms[int(place)] for place in test.patient)


def _round_seconds(outcomes: Mapping[tuple[Arm, int], tuple[ArmOutcome, ...]]) -> float:
    """Return the median wall time of a federated round without validation and saving.

    Those of the arm without privacy where it was run: the bare loop has none.
    """
    arm: Arm = "federated" if any(key[0] == "federated" for key in outcomes) else "federated_dp"
    found = [
        record.training_seconds
        for (name, _), several in outcomes.items()
        if name == arm
        for outcome in several
        for record in outcome.rounds
        if record.training_seconds > 0  # 0: trained before an interruption
    ]
    return statistics.median(found) if found else float("nan")


def peak_rss_mb() -> float:
    """Return the most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
