"""Floor for timings: the same steps in plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from client.training.batches import batches
from client.training.local_round import make_optimizer
from client.training.training_site import Site, data_order
from common.config.run_config import RunConfig
from common.data.sample import patient_loss
from common.extensions.transforms import transforms_of
from common.models.bags import answered
from common.models.run_network import network_of
from common.tasks import task_of
from common.tasks.loss_choice import training_loss

_REPEATS = 3


def bare_round_seconds(sites: Mapping[str, Site], config: RunConfig) -> float:
    """Return the median time of one round's local steps of all sites, training only."""
    network, task, rules = network_of(config, 0), task_of(config.task), config.training
    item_loss, transforms = training_loss(config, task), transforms_of(config)
    times = []
    for repeat in range(_REPEATS):
        start = time.perf_counter()
        for site in sites.values():
            if len(site.train) == 0:
                continue
            optimizer = make_optimizer(network, rules, 1)
            generator = data_order(0, site.name, repeat)
            for batch in batches(
                site.train,
                rules.batch_patients,
                rules.images_per_patient,
                rules.local_steps,
                generator,
            ):
                optimizer.zero_grad(set_to_none=True)
                image, target = batch.image, batch.target
                if transforms is not None:
                    image, target = transforms(image, target, generator)
                output, of = answered(network, batch._replace(image=image, target=target))
                patient_loss(item_loss(output, of.target), of).backward()  # type: ignore[no-untyped-call]  # torch ships it so
                optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
