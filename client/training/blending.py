"""Personalisation by blending: a mix of the shared model and of one trained at this site alone.

    w(a) = (1 - a) shared + a own,  a in 0, 1/4, 1/2, 3/4, 1

How much of each is weighed by the site's validation patients, not picked: a is the mean of the
five shares, each weighted by the likelihood of the validation patients under it (Bayesian model
averaging with an even prior). A few patients say little and leave a near one half, which neither
model's weakness spoils; many move it to the end that they prefer. The best of five on ten
patients is chance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from client.training.evaluation import score
from client.training.local_model import LocalModel
from client.training.training_site import Site
from common.data.weights import Weights
from common.tasks.task import by_patient

#: Shares of the site's own model that are tried.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def blend(site: Site, local_model: LocalModel, shared: Weights, own: Weights) -> dict[str, Tensor]:
    """Return the mix of both models that the site's validation patients speak for.

    The losses are taken as negative log-likelihoods, which those of diagnosis and prognosis are.
    Where the mean share validates worse than the shares that it is the mean of (weights of deep
    networks need not lie in one valley), the best share is taken. Without validation patients
    nobody can say what a mix is worth here, and the shared model is returned.
    """
    if len(site.validation) == 0:
        return dict(shared)
    losses = torch.stack([_losses(site, local_model, mixed(shared, own, a)) for a in SHARES])
    # A network that fails on anybody is no candidate.
    total = torch.nan_to_num(losses.sum(1), nan=torch.inf)
    if bool(torch.isinf(total).all()):
        return dict(shared)
    believed = torch.softmax(-total, 0)
    share = float((believed * torch.tensor(SHARES, dtype=torch.float64)).sum())
    found = mixed(shared, own, share)
    # Jensen's inequality: where the loss is convex in the weights this never happens.
    expected = float(believed[believed > 0] @ total[believed > 0])
    if not float(_losses(site, local_model, found).sum()) <= expected + 1e-9:
        return mixed(shared, own, SHARES[int(total.argmin())])
    return found


def mixed(shared: Weights, own: Weights, share: float) -> dict[str, Tensor]:
    """Return the weights between both; the ends are returned to the bit."""
    if share in {0.0, 1.0}:
        return dict(own if share else shared)
    return {name: torch.lerp(value, own[name], share) for name, value in shared.items()}


def _losses(site: Site, local_model: LocalModel, weights: Weights) -> Tensor:
    """Return the loss of each validation patient, in float64."""
    local_model.load(weights)
    return by_patient(score(local_model, site.validation))
