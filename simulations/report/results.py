"""results.json: what a comparison found, for programs."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import statistics
from pathlib import Path

import torch

from common.config.run_config import RunConfig
from common.platform.durable_files import replace_durably
from common.tasks.task import Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison, peak_rss_mb
from simulations.comparison.verdicts import Verdict, said_of
from simulations.report.confusion import matrices
from simulations.report.constant import constant_metrics

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_PACKAGES = ("wardround", "torch", "monai", "opacus", "dp-accounting", "pydicom", "numpy")


def write_results(path: Path, comparison: Comparison) -> None:
    """Write results.json; the same command gives the same content, timing apart."""
    text = json.dumps(results(comparison), indent=2, allow_nan=False)
    replace_durably(path, (text + "\n").encode())


def results(comparison: Comparison) -> dict[str, Json]:
    """Return the content of results.json, schema 2."""
    return {
        "schema": 2,
        "name": comparison.config.name,
        # As hospitals see and approve it, with its privacy section in force.
        "configuration": comparison.config.in_force().fingerprint(),
        "task": comparison.config.task.kind,
        "metric": comparison.metric,
        "average": comparison.config.evaluation.average,
        "sites": [_site(comparison, i) for i in range(len(comparison.cohorts))],
        "left_out": dict(comparison.left_out),
        "seeds": list(comparison.seeds),
        "constant_first_seed": {n: known(v) for n, v in constant_metrics(comparison).items()},
        "arms": {arm: arm_results(comparison, arm) for arm in comparison.arms},
        "matrix": {t: dict(row) for t, row in comparison.matrix.items()},
        "verdicts": {site: _verdict(found) for site, found in comparison.verdicts.items()},
        "timing": {
            "round_seconds": known(comparison.round_seconds),
            "bare_round_seconds": known(comparison.bare_round_seconds),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "total_seconds": round(comparison.seconds, 2),
        },
        # Sums of floating-point numbers depend on it: equal results take equal threads.
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def arm_results(comparison: Comparison, arm: Arm) -> dict[str, Json]:
    """Return one arm: headline by seed, by site, and what it cost in privacy."""
    values = [comparison.value(arm, seed) for seed in comparison.seeds]
    per_site: dict[str, Json] = {}
    for cohort in comparison.cohorts:
        own = [comparison.site_value(arm, seed, cohort.name) for seed in comparison.seeds]
        held = [v for v in own if not math.isnan(v)]
        per_site[cohort.name] = known(statistics.fmean(held)) if held else None
    first = comparison.seeds[0]
    merged = comparison.merged_scores(arm, first)
    estimates = comparison.metrics(merged, first)
    confusion = confusion_json(comparison.config, merged)
    epsilon, delta, common, unit = _privacy(comparison, arm)
    return {
        "mean": known(statistics.fmean(values)),
        "std": known(statistics.stdev(values)) if len(values) > 1 else 0.0,
        "per_seed": [known(v) for v in values],
        "per_site": per_site,
        "epsilon": epsilon,
        "delta": delta,
        "common_epsilon": common,
        "unit": unit,
        "average": "sites" if comparison.is_mean_of_sites(arm) else "merged",
        "metrics_first_seed": {n: dict(e.to_json()) for n, e in estimates.items()},
        "told_first_seed": {
            n: dict(e.to_json()) for n, e in comparison.outcomes[arm, first][0].told.items()
        },
        **({"confusion_first_seed": confusion} if confusion else {}),
        # By seed and fold: the score of each round on validation patients; lower is better.
        "rounds": {
            f"seed {seed}" + (f", fold {fold}" if fold else ""): [
                {"round": record.round, "validation": _scored(record.score)}
                for record in outcome.rounds
            ]
            for seed in comparison.seeds
            for fold, outcome in enumerate(comparison.outcomes[arm, seed])
        },
    }


def confusion_json(config: RunConfig, scores: Scores) -> list[Json]:
    """Return the matrices of true (a row each) by predicted; empty where none is asked for."""
    return [
        {"classes": [*one.classes], "counts": [[*row] for row in one.counts.tolist()]}
        for one in matrices(config, scores)
    ]


def _scored(score: float | None) -> Json:
    return None if score is None else known(score)


def _privacy(comparison: Comparison, arm: Arm) -> tuple[Json, Json, Json, Json]:
    """Return the largest epsilon, delta and epsilon at 1e-5 over sites and seeds; the unit."""
    privacy = comparison.config.privacy
    if arm != "federated_dp" or privacy == "none":
        return None, None, None, None
    outcomes = [o for seed in comparison.seeds for o in comparison.outcomes[arm, seed]]
    epsilon = max(max(o.epsilon.values()) for o in outcomes)
    delta = max(max(o.delta.values()) for o in outcomes)
    common = max(max(o.common_epsilon.values()) for o in outcomes)
    return known(epsilon), known(delta), known(common), privacy.unit


def _site(comparison: Comparison, place: int) -> dict[str, Json]:
    cohort = comparison.cohorts[place]
    return {
        "name": cohort.name,
        "patients": len(cohort.items),
        "images": len(cohort.items.patient) if comparison.config.cohort.images else 0,
        "not_used": {
            reason.name: count
            for reason, count in sorted(cohort.reasons().items(), key=lambda pair: pair[0].name)
        },
    }


def _verdict(verdict: Verdict) -> Json:
    """Return what a hospital would choose, by seed and fold, and each model minus its own."""
    gains: dict[str, Json] = {
        name: {
            "difference": known(gain.value),
            "low": known(gain.low),
            "high": known(gain.high),
            "summary": said_of(gain),
        }
        for name, gain in verdict.gains.items()
    }
    return {"choice": [list(folds) for folds in verdict.chosen], "gains": gains}


def known(value: float) -> float | None:
    """Return a number that JSON can hold: eight digits, so that equal runs print equal text."""
    return float(f"{value:.8g}") if math.isfinite(value) else None


def versions() -> dict[str, Json]:
    """Return the versions of Python and of the packages that decide what is computed."""
    found: dict[str, Json] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
