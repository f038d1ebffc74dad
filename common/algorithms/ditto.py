"""Ditto (Li et al. 2021, algorithm 1): a model of each site's own beside the shared one.

    v <- v - rate x (gradient of the site's loss at v + pull x (v - w of the round's start))

The shared weights w are trained as ever, and v never enters them: what leaves a site is the same
with Ditto and without. The pull is FedProx's (common/algorithms/fedprox.py), on v's steps.

Public: personal_weights, kept_personal.
"""

from __future__ import annotations

from torch import Tensor

from common.data.weights import Weights, on_processor

#: Before the names of v in a site's memory.
_PERSONAL = "personal/"


def personal_weights(kept: Weights) -> dict[str, Tensor]:
    """Site: return v as it was kept after a round; empty before the first."""
    return {
        name.removeprefix(_PERSONAL): value
        for name, value in kept.items()
        if name.startswith(_PERSONAL)
    }


def kept_personal(weights: Weights) -> dict[str, Tensor]:
    """Site: return copies of v under the names by which it is kept."""
    return {f"{_PERSONAL}{name}": value.clone() for name, value in on_processor(weights).items()}
