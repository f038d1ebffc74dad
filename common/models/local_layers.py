"""Layers that stay at a site: FedBN's norms or a personal head.

A round leaves them out of its update (client/training/local_round.py); between rounds they lie in
the site's home (client/training/kept_between_rounds.py).
"""

from __future__ import annotations

from typing import assert_never

from torch import nn

from common.config.run_config import RunConfig
from common.data.weights import trainable
from common.models import head_parameters, norm_parameters
from common.platform.errors import ConfigurationError

#: What tasks complete a network with: baseline hazards, or the thresholds of grades.
LEARNED_BESIDE = frozenset({"baseline", "gaps"})


def local_names(config: RunConfig, network: nn.Module) -> frozenset[str]:
    """Return the parameters that stay at a site: FedBN's norms, or a personal head.

    ConfigurationError when nothing would be left to share, or nothing to keep.
    """
    match config.personalisation.method:
        case "none" | "ditto" | "fine_tune" | "blend":
            return frozenset()
        case "local_norm":
            kept = frozenset(norm_parameters(network))
        case "personal_head":
            beside = {n for n, _ in network.named_parameters() if n in LEARNED_BESIDE}
            kept = frozenset(head_parameters(network)) | beside
        case _:
            assert_never(config.personalisation.method)
    if not kept or len(kept) == len(trainable(network)):
        part = "everything" if kept else "nothing"
        message = (
            f"personalisation.method={config.personalisation.method} keeps {part} of network "
            f"{config.model.network} at the sites. Use fine_tune, or a network with both parts."
        )
        raise ConfigurationError(message)
    return kept
