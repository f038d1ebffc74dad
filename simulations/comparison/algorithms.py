"""Algorithms by the names that papers give them: what each changes of a run, and its arm.

They are compared without privacy, which several of them do not know.

Public: Algorithm, algorithms_of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.config.changes import Changes
from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError
from simulations.comparison.arms import Arm

#: FedProx's mu where a run says nothing: the middle of what its authors tried.
_PROXIMAL = 0.01
_PLAIN: Mapping[str, object] = {
    "aggregation.rule": "mean",
    "aggregation.server.kind": "sgd",
    "training.proximal": 0.0,
    "privacy": "none",
}
_CHANGES: Mapping[str, Mapping[str, object]] = {
    "fedavg": {},
    "fedprox": {"training.proximal": _PROXIMAL},
    "scaffold": {"aggregation.rule": "scaffold"},
    "fedbn": {"personalisation": {"method": "local_norm"}},
    "fedrep": {"personalisation": {"method": "personal_head"}},
    "ditto": {"personalisation": {"method": "ditto"}},
}


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm on a run."""

    name: str
    changes: Changes  # of the run, by key
    arm: Arm  # by which it is measured


def algorithms_of(text: str, config: RunConfig) -> tuple[Algorithm, ...]:
    """Return the algorithms that commas part in `text`, with what a run says of each kept.

    ConfigurationError names one that is not known, or is there twice.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    odd = [name for name in names if name not in _CHANGES]
    if odd or not names:
        found = ", ".join(odd) or "nothing"
        message = f"The algorithms hold {found}; expected some of {','.join(_CHANGES)}."
        raise ConfigurationError(message)
    if len(set(names)) < len(names):
        message = f"The algorithms {', '.join(names)} name one twice. Give each once."
        raise ConfigurationError(message)
    return tuple(_algorithm(name, config) for name in names)


def _algorithm(name: str, config: RunConfig) -> Algorithm:
    changes = {**_PLAIN, **_CHANGES[name]}
    said, own = config.training.proximal, config.personalisation
    if name == "fedprox" and said > 0:
        changes["training.proximal"] = said
    if name == "ditto" and own.pull is not None:
        changes["personalisation"] = {"method": "ditto", "pull": own.pull}
    # Hospitals' own models are measured by hospital, so the shared ones beside them are, too.
    changes["evaluation.average"] = "sites"
    arm: Arm = "personalised" if "personalisation" in changes else "federated"
    return Algorithm(name=name, changes=changes, arm=arm)
