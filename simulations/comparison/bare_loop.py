"""Floor for timings: the same steps in plain PyTorch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from client.training.batches import batches
from client.training.local_model import open_local_model
from client.training.local_round import make_optimizer
from client.training.training_site import Site, data_order
from common.config.run_config import RunConfig

_REPEATS = 3


def bare_round_seconds(sites: Mapping[str, Site], config: RunConfig) -> float:
    """Return the median time of one round's local steps of all sites, training only."""
    local_model, rules = open_local_model(config, 0), config.training
    transforms = local_model.transforms
    times = []
    for repeat in range(_REPEATS):
        start = time.perf_counter()
        for site in sites.values():
            if len(site.train) == 0:
                continue
            optimizer = make_optimizer(local_model.model, rules, 1)
            generator = data_order(0, site.name, repeat)
            for batch in batches(
                site.train,
                rules.batch_patients,
                rules.images_per_patient,
                rules.local_steps,
                generator,
                local_model.patches,
            ):
                optimizer.zero_grad(set_to_none=True)
                image, target = batch.image, batch.target
                if transforms is not None:
                    image, target = transforms(image, target, generator)
                local_model.add_gradient(batch._replace(image=image, target=target))
                optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
