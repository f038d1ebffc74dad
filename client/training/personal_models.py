"""What a site's own model is worth beside the shared one; told at the site, and nowhere else."""

from __future__ import annotations

import numpy as np

from client.training.evaluation import score
from client.training.local_model import LocalModel
from client.training.training_site import Site
from common.algorithms.ditto import personal_weights
from common.data.weights import Weights
from common.messages.wire import EvaluationRequest


def own_beside_shared(
    site: Site, local_model: LocalModel, request: EvaluationRequest
) -> str | None:
    """Return the headline of both models on the site's test patients, for its admin to read.

    None before the site trained one, and without test patients.
    """
    own = personal_weights(site.memory.recall(request.run, request.round))
    if not own or len(site.test) == 0:
        return None
    metric = local_model.task.metric
    values = [_headline(site, local_model, weights) for weights in (own, request.weights)]
    return (
        f"Run {request.run}: {metric} on {len(site.test)} test patients here is {values[0]:.3f} "
        f"with this site's own model and {values[1]:.3f} with the shared one. This is told nowhere "
        "else, and the own model stays here."
    )


def _headline(site: Site, local_model: LocalModel, weights: Weights) -> float:
    local_model.load(weights)
    scores, rules = score(local_model, site.test), local_model.config.evaluation
    whole = np.ones((1, len(scores.loss)))
    return float(local_model.task.draws(scores, whole, rules)[0])
