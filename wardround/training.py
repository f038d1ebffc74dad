"""What federation buys, and the model that it gives: compare and train."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.config.run_config import RunConfig
from common.data.weights import Weights
from common.platform.errors import ConfigurationError
from common.tasks.task import Scores, owners
from simulations.cli.progress import table_of
from simulations.comparison.arms import Arm, ArmOutcome, chosen_arms
from simulations.comparison.cohorts import check_parts
from simulations.comparison.compare import Comparison, ComparisonPlan
from simulations.comparison.compare import compare as compare_arms
from simulations.comparison.not_used import write_not_used
from simulations.comparison.verdicts import said_of
from simulations.engines.engine_choice import Engine, EngineKind
from wardround.progress import comparing, reading
from wardround.showing import as_html, as_text, frame
from wardround.sites import Cohorts, check_read_for

if TYPE_CHECKING:
    import pandas as pd

#: Arms that end in one model for all hospitals.
SharedArm = Literal["federated", "federated_dp", "pooled"]
_SHARED: tuple[SharedArm, ...] = ("federated", "federated_dp", "pooled")


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """What a comparison found: every arm and seed, on each hospital's own test patients."""

    comparison: Comparison  # everything, also each patient's scores; stays in this process
    sites: Cohorts

    @property
    def metric(self) -> str:
        """Name of the headline metric: auroc, auroc_macro, concordance, dice."""
        return self.comparison.metric

    def frame(self) -> pd.DataFrame:
        """Return the headline metric: a row for each arm, seed and site, and for site "all".

        Columns: arm, seed, site, metric, value, patients (that were tested), epsilon, delta. A
        value is NaN where it cannot be had, as with one outcome only. Site "all" is measured over
        all test patients together; where each hospital has a model of its own (local,
        personalised), and with evaluation.average: sites, it is the mean of the hospitals' own
        values. epsilon and delta are by patient at that site, at "all" the largest; NaN without
        privacy.
        """
        return headline_frame(self.comparison)

    def metrics(self) -> pd.DataFrame:
        """Return all metrics with 95 % intervals: a row for each arm, seed, site and metric.

        Columns: arm, seed, site, metric, value, low, high, patients. Intervals are bootstrapped
        by patient, for other patients of these hospitals and the models as they were trained.
        Site "all", over all test patients together, is only with arms that have one model for all.
        """
        return metrics_frame(self.comparison)

    def gains(self) -> pd.DataFrame:
        """Return what each model gains a hospital over its own, all seeds together.

        Columns: site, model (federated, personalised, federated_dp, or the one it would choose),
        difference (of the headline metric; below 0 is harm), low, high (95 %, paired bootstrap by
        patient), summary. Empty unless local and federated were both compared.
        """
        rows = [
            {
                "site": site,
                "model": model,
                "difference": gain.value,
                "low": gain.low,
                "high": gain.high,
                "summary": said_of(gain),
            }
            for site, verdict in self.comparison.verdicts.items()
            for model, gain in verdict.gains.items()
        ]
        return frame(("site", "model", "difference", "low", "high", "summary"), rows)

    def rounds(self) -> pd.DataFrame:
        """Return the rounds of shared models: arm, seed, fold, round, validation, updates, epsilon.

        validation is the loss on validation patients (lower is better), NaN where the round was
        not measured; updates the sites that were in the round; epsilon the largest so far.
        """
        return rounds_frame(self.comparison)

    def report(self, folder: str | PathLike[str]) -> Path:
        """Write what the command writes, and return report.html.

        report.html (one page that stands alone), results.json, config.yaml, not-used.csv,
        pictures/ and, where an arm has a shared model, bundle/. What an earlier comparison left
        there is replaced. RunFailed where an exported network does not compute what the trained
        one does, OSError where the folder cannot be written.
        """
        from simulations.report.output import begin_folder, write_found

        out = Path(folder)
        begin_folder(out, self.comparison.config)
        write_not_used(out / "not-used.csv", self.sites.hospitals)
        write_found(out, self.comparison)
        return out / "report.html"

    def __repr__(self) -> str:
        return as_text(table_of(self.comparison))

    def _repr_html_(self) -> str:
        return as_html(table_of(self.comparison))


@dataclass(frozen=True, kw_only=True, repr=False)
class Trained:
    """One shared model and how it came about."""

    comparison: Comparison  # of this arm and seed alone
    arm: SharedArm
    seed: int

    @property
    def weights(self) -> Weights:
        """The model's parameters by name, float32 tensors; of the chosen round."""
        return self._outcome.weights

    @property
    def chosen_round(self) -> int:
        """The round whose weights these are, from 1."""
        return self._outcome.chosen_round

    def frame(self) -> pd.DataFrame:
        """Return the headline metric by site, as `Results.frame`."""
        return headline_frame(self.comparison)

    def metrics(self) -> pd.DataFrame:
        """Return all metrics with intervals by site, as `Results.metrics`."""
        return metrics_frame(self.comparison)

    def rounds(self) -> pd.DataFrame:
        """Return the rounds, as `Results.rounds`."""
        return rounds_frame(self.comparison)

    def bundle(self, folder: str | PathLike[str]) -> Path:
        """Write the model as a bundle and return its folder.

        safetensors, ONNX, TorchScript, a MONAI Bundle, and README.md as the model card. RunFailed
        where an exported network does not compute what the trained one does.
        """
        from simulations.report.bundle_output import write_shared_model

        write_shared_model(Path(folder), self.comparison)
        return Path(folder)

    @property
    def _outcome(self) -> ArmOutcome:
        return self.comparison.outcomes[self.arm, self.seed][0]

    def __repr__(self) -> str:
        return as_text(table_of(self.comparison)) + f"\n{self._said}"

    def _repr_html_(self) -> str:
        return as_html(table_of(self.comparison)) + f"<p>{self._said}</p>"

    @property
    def _said(self) -> str:
        values = sum(value.numel() for value in self.weights.values())
        return f"{self.arm}, seed {self.seed}: {values} parameters, of round {self.chosen_round}"


def compare(
    run: RunConfig,
    sites: Cohorts,
    *,
    arms: Sequence[Arm] | str | None = None,
    seeds: int | Sequence[int] = 1,
    workers: int | None = None,
    engine: EngineKind = "builtin",
    progress: bool = True,
) -> Results:
    """Train several ways on the very same splits of the patients, and measure each.

    run: what is trained; it may differ from the run that the sites were read for in training,
        aggregation, personalisation and privacy, not in what is read.
    sites: of `cohorts` or `partition`.
    arms: some of local (each hospital alone), pooled (all patients in one place), federated,
        personalised and federated_dp (by patient, needs privacy in the run); None is all that the
        run can have.
    seeds: how many (0 to N-1), or which: splits, first weights, data order.
    workers: processes that the hospitals of a round are shared among; results stay the same.
    engine: "ray" is Flower's Ray engine, for clusters.
    progress: whether to show how far it is.

    The numbers are those of `wardround-simulate compare` with the same options and as many
    threads (`torch.get_num_threads()`). A call that was interrupted goes on where it stopped when
    it is made again; private arms begin anew.

    Raises ConfigurationError for arms, seeds or sites that do not fit the run, CohortError where
    nobody is there to train or to test on, RunFailed where no hospital can train.
    """
    check_read_for(sites, run)
    chosen = chosen_arms(arms if arms is None or isinstance(arms, str) else ",".join(arms), run)
    plan = ComparisonPlan(
        arms=chosen,
        seeds=_seeds(seeds),
        folder=sites.folder,
        engine=Engine(kind=engine, workers=workers),
    )
    return Results(comparison=_compared(run, sites, plan, shown=progress), sites=sites)


def train(
    run: RunConfig,
    sites: Cohorts,
    *,
    arm: SharedArm = "federated",
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Trained:
    """Train one shared model, and measure it on each hospital's own test patients.

    run, sites: as in `compare`.
    arm: federated, pooled or federated_dp, as in `compare`, whose weights these are, to the bit.
    seed: of the split, the first weights and the data order.

    A private model (federated_dp) is trained with noise that can be repeated, so that it may be
    studied: it carries no privacy claim, and must not leave on the strength of one.

    Raises as `compare`, and ConfigurationError for an arm without a shared model.
    """
    if arm not in _SHARED:
        message = (
            f"arm={arm!r} has no model for all hospitals; expected one of {', '.join(_SHARED)}. "
            "compare shows the others."
        )
        raise ConfigurationError(message)
    check_read_for(sites, run)
    plan = ComparisonPlan(
        arms=chosen_arms(arm, run),
        seeds=_seeds([seed]),
        folder=sites.folder,
        engine=Engine(workers=workers),
        bare_loop=False,
    )
    found = _compared(run, sites, plan, shown=progress)
    return Trained(comparison=found, arm=arm, seed=seed)


def _compared(run: RunConfig, sites: Cohorts, plan: ComparisonPlan, *, shown: bool) -> Comparison:
    hospitals = sites.hospitals
    with reading(shown=shown) as tell:
        check_parts(hospitals.cohorts, run.cohort, plan.seeds, tell)
    with comparing(run, plan.arms, len(plan.seeds), shown=shown) as progress:
        found = compare_arms(run, hospitals.cohorts, plan, progress)
    return replace(found, left_out=hospitals.left_out)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds; ConfigurationError where there is none, one twice, or one below 0."""
    found = tuple(seeds if isinstance(seeds, Iterable) else range(operator.index(seeds)))
    if not found or len(set(found)) < len(found) or min(found) < 0:
        message = (
            f"seeds={seeds!r}, expected how many (1 or more), or different numbers from 0 on, "
            "such as [0, 1, 2]."
        )
        raise ConfigurationError(message)
    return found


# --- as pandas ---------------------------------------------------------------------------


def headline_frame(found: Comparison) -> pd.DataFrame:
    """Return the headline metric by arm, seed and site; see `Results.frame`."""
    rows: list[dict[str, object]] = []
    for arm in found.arms:
        for seed in found.seeds:
            whole = {"arm": arm, "seed": seed, "metric": found.metric}
            for cohort in found.cohorts:
                scores = found.site_scores(arm, seed, cohort.name)
                value = found.site_value(arm, seed, cohort.name)
                spent = _spent(found, arm, seed, cohort.name)
                rows.append(whole | _measured(cohort.name, value, scores) | spent)
            everyone = found.merged_scores(arm, seed)
            value, spent = found.value(arm, seed), _spent(found, arm, seed, None)
            rows.append(whole | _measured("all", value, everyone) | spent)
    columns = ("arm", "seed", "site", "metric", "value", "patients", "epsilon", "delta")
    return frame(columns, rows)


def _measured(site: str, value: float, scores: Scores) -> dict[str, object]:
    return {"site": site, "value": value, "patients": len(set(owners(scores).tolist()))}


def _spent(found: Comparison, arm: Arm, seed: int, site: str | None) -> dict[str, object]:
    """Return a site's epsilon and delta, or the largest of all sites; over folds the largest."""
    outcomes = found.outcomes[arm, seed]

    def largest(values: Sequence[float]) -> float:
        return max(values, default=math.nan)

    return {
        "epsilon": largest(
            [v for o in outcomes for n, v in o.epsilon.items() if site in {None, n}]
        ),
        "delta": largest([v for o in outcomes for n, v in o.delta.items() if site in {None, n}]),
    }


def metrics_frame(found: Comparison) -> pd.DataFrame:
    """Return all metrics with intervals by arm, seed and site; see `Results.metrics`."""
    rows: list[dict[str, object]] = []
    for arm in found.arms:
        for seed in found.seeds:
            parts = {c.name: found.site_scores(arm, seed, c.name) for c in found.cohorts}
            if arm in _SHARED:
                parts["all"] = found.merged_scores(arm, seed)
            rows += [
                {
                    "arm": arm,
                    "seed": seed,
                    "site": site,
                    "metric": name,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "patients": estimate.patients,
                }
                for site, scores in parts.items()
                for name, estimate in found.metrics(scores, seed).items()
            ]
    columns = ("arm", "seed", "site", "metric", "value", "low", "high", "patients")
    return frame(columns, rows)


def rounds_frame(found: Comparison) -> pd.DataFrame:
    """Return the rounds of arms with a shared model; see `Results.rounds`."""
    rows: list[dict[str, object]] = [
        {
            "arm": arm,
            "seed": seed,
            "fold": fold,
            "round": record.round,
            "validation": math.nan if record.score is None else record.score,
            "updates": len(record.updates),
            "epsilon": max(record.epsilon.values(), default=math.nan),
        }
        for (arm, seed), outcomes in found.outcomes.items()
        if arm in _SHARED
        for fold, outcome in enumerate(outcomes)
        for record in outcome.rounds
    ]
    columns = ("arm", "seed", "fold", "round", "validation", "updates", "epsilon")
    return frame(columns, rows)
