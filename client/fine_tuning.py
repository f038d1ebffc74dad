"""A site's own version of the shared model: some more steps on its own patients."""

from __future__ import annotations

import torch
from torch import Tensor

from client.batches import batches
from client.evaluation import score
from client.site import Site, data_order
from client.workbench import Workbench
from common.config import Personalisation
from common.sample import patient_loss
from common.weights import Weights, load_into, trainable

#: How often the site looks at its validation patients while it tunes.
_LOOKS = 5


def fine_tune(
    site: Site, bench: Workbench, shared: Weights, rules: Personalisation, seed: int
) -> dict[str, Tensor]:
    """Return the weights, among the shared ones and some tuned ones, that validate best here.

    Without validation patients the last are returned.
    """
    training = bench.config.training
    load_into(bench.model, shared)
    generator = data_order(seed, site.name, 0)
    rate = rules.learning_rate or training.learning_rate / 10
    parameters = [p for p in bench.model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        parameters, lr=rate, weight_decay=training.weight_decay
    )
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=rate)
    best, best_loss = dict(shared), _validation_loss(site, bench)
    every = max(1, rules.steps // _LOOKS)
    steps = batches(
        site.train, training.batch_patients, training.images_per_patient, rules.steps, generator
    )
    for number, batch in enumerate(steps, 1):
        optimizer.zero_grad(set_to_none=True)
        losses = bench.task.item_loss(bench.model(batch.image, batch.table), batch.target)
        patient_loss(losses, batch).backward()  # type: ignore[no-untyped-call]  # torch ships it so
        optimizer.step()
        if number % every == 0:
            loss = _validation_loss(site, bench)
            if not loss >= best_loss:
                best_loss = loss
                best = {n: v.clone() for n, v in trainable(bench.model).items()}
    return best


def _validation_loss(site: Site, bench: Workbench) -> float:
    """Return the mean validation loss; nan, which never counts as worse, without patients."""
    if len(site.validation) == 0:
        return float("nan")
    return float(score(bench, site.validation).loss.mean())
