"""Every hospital's own model, measured at every hospital: which data lead to models that travel."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from client.training.evaluation import score
from client.training.local_model import open_local_model
from common.platform.errors import ConfigurationError
from common.tasks.task import Scores
from simulations.comparison.arm_configurations import alone
from simulations.comparison.arms import Arm
from simulations.comparison.cohorts import sites_of
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import concatenated

#: By hospital that trained, by hospital whose test patients are measured: the headline metric,
#: mean over seeds. None where there is no value.
Matrix = Mapping[str, Mapping[str, float | None]]


def check_matrix(arms: Sequence[Arm]) -> None:
    """Refuse a matrix without the arm whose models it measures; ConfigurationError."""
    if "local" not in arms:
        message = f"The matrix measures each hospital's own model: add local to {','.join(arms)}."
        raise ConfigurationError(message)


def site_matrix(found: Comparison) -> Matrix:
    """Return the headline of each hospital's model of arm `local` at each hospital.

    A hospital that could not train alone has no row.
    """
    check_matrix(found.arms)
    values: dict[str, dict[str, list[float]]] = {}
    for seed in found.seeds:
        for trained, tested in _scores(found, seed).items():
            for site, scores in tested.items():
                held = values.setdefault(trained, {}).setdefault(site, [])
                value = found.headline(scores)
                if math.isfinite(value):
                    held.append(value)
    return {
        trained: {site: statistics.fmean(held) if held else None for site, held in row.items()}
        for trained, row in values.items()
    }


def _scores(found: Comparison, seed: int) -> dict[str, dict[str, Scores]]:
    """Return scores by hospital that trained and hospital that is measured, over all folds."""
    parts: dict[str, dict[str, list[Scores]]] = {}
    for fold, outcome in enumerate(found.outcomes["local", seed]):
        local_model = open_local_model(alone(found.config, 1), seed)
        sites = sites_of(found.cohorts, found.config, seed, fold)
        for trained, weights in outcome.own.items():
            local_model.load(weights)
            row = parts.setdefault(trained, {})
            for name, site in sites.items():
                row.setdefault(name, [])
                if len(site.test) > 0:
                    row[name].append(score(local_model, site.test))
    return {
        trained: {name: concatenated(several) for name, several in row.items() if several}
        for trained, row in parts.items()
    }
