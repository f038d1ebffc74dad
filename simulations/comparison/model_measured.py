"""A trained model measured on hospitals' patients, by hospital and over all of them.

Public: Part, measured, opened, scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from client.inference.inputs import check_bundle
from client.inference.trained_model import TrainedModel, open_model
from client.site.extensions_section import all_of
from client.training.evaluation import score
from client.training.local_model import LocalModel, open_local_model
from common.data.sample import Patients
from common.data.weights import load_into
from common.extensions.content import offered
from common.metrics.intervals import Estimate
from common.platform.errors import CohortError, ConfigurationError
from common.tasks.task import Scores
from simulations.comparison.compare import exact_metrics
from simulations.comparison.verdicts import concatenated

#: Of each hospital's patients: those whom the run's split keeps for testing, or all.
Part = Literal["test", "all"]


def opened(folder: Path) -> TrainedModel:
    """Open a bundle with every extension that is installed; only hospitals keep a list of them.

    ConfigurationError where there is none or another release made it; StateDamaged where a file is
    missing, was changed, or does not compute what the bundle's ONNX file does.
    """
    check_bundle(folder)
    return open_model(folder, [all_of(one.extension) for one in offered()])


def check_part(model: TrainedModel, part: Part) -> None:
    """Refuse `test` of a run between hospitals, whose splits only they know; ConfigurationError."""
    if part not in {"test", "all"}:
        message = f"part={part!r}, expected test or all."
        raise ConfigurationError(message)
    if part == "test" and not model.simulated:
        message = (
            f"{model.name.name} was trained between hospitals, and only they know whom it was "
            "tested on. Take part all for a hospital that took no part in it."
        )
        raise ConfigurationError(message)


def scored(model: TrainedModel, cohorts: Sequence[SiteCohort], part: Part) -> dict[str, Scores]:
    """Return each hospital's scores; CohortError where nobody is left to score."""
    network = _network(model)
    scores = {
        site.name: score(network, patients)
        for site in cohorts
        if len(patients := _chosen(site, model, part))
    }
    if not scores:
        names = ", ".join(site.name for site in cohorts)
        message = (
            f"None of {names} has patients in the run's test part. Take part all for a hospital "
            "that took no part in the run."
        )
        raise CohortError(message)
    return scores


def measured(
    model: TrainedModel, scores: Mapping[str, Scores]
) -> dict[str, Mapping[str, Estimate]]:
    """Return every metric by hospital; and of `all`, where there are several.

    Not of `all` where the run's headline is the mean of the sites' own (evaluation.average: sites).
    """
    together = len(scores) > 1 and model.config.evaluation.average == "merged"
    merged = {"all": concatenated(list(scores.values()))} if together else {}
    return {n: exact_metrics(model.config, found, 0) for n, found in {**scores, **merged}.items()}


def _network(model: TrainedModel) -> LocalModel:
    """Return the model's network as it is measured in training, with the bundle's weights."""
    found = open_local_model(model.config, model.seed, start=False)
    load_into(found.model, dict(model.deployed.network.named_parameters()))
    return found


def _chosen(site: SiteCohort, model: TrainedModel, part: Part) -> Patients:
    if part == "all":
        return site.items
    return site.split(model.config.cohort.split, simulated_key(model.seed))["test"]
