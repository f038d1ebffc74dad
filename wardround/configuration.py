"""A run's configuration, from a file or from Python values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from common.config.run_config import RunConfig, load_config, parse_config
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError
from simulations.comparison.arm_configurations import with_epsilon


def load(
    config: str | PathLike[str] | Mapping[str, object] | RunConfig,
    changes: Mapping[str, object] | None = None,
    *,
    epsilon: float | None = None,
) -> RunConfig:
    """Return a run: what is learned, from what, how, and under what privacy.

    config: the path of a YAML file as `wardround-simulate compare` takes it, the same as a
        mapping, or a run to change. See docs/researcher.md, configs/schema.json and
        configs/simulations/.
    changes: values by the dotted name of their key, such as {"training.rounds": 20}; set before
        anything is checked.
    epsilon: another epsilon, by patient, for the arm federated_dp, as --epsilon; of a run without
        privacy it makes one whose sites declare how many patients they have.

    The run is frozen; `run.to_yaml()` is the whole of it with every default, `run.fingerprint()`
    its identity.

    Raises ConfigurationError with the key, the value and what fits, and the nearest name for a
    key that there is not.
    """
    if changes is None and isinstance(config, RunConfig):
        return pinned(with_epsilon(config, epsilon), simulated=True)
    if changes is None and not isinstance(config, Mapping | RunConfig):
        return pinned(with_epsilon(load_config(Path(config)), epsilon), simulated=True)
    content = _content(config)
    for name, value in (changes or {}).items():
        _set(content, name, value)
    found = parse_config(json.dumps(content, default=str))
    return pinned(with_epsilon(found, epsilon), simulated=True)


def _content(config: str | PathLike[str] | Mapping[str, object] | RunConfig) -> dict[str, object]:
    """Return the configuration as plain values of its own, which may be changed."""
    if isinstance(config, Mapping):
        found: dict[str, object] = json.loads(json.dumps(dict(config), default=str))
        return found
    run = config if isinstance(config, RunConfig) else load_config(Path(config))
    return run.model_dump(mode="json", exclude={"extensions"})  # `load` writes in what is left


def _set(content: dict[str, object], name: str, value: object) -> None:
    """Set the value of a dotted key; sections that are not there are made."""
    *sections, key = name.split(".")
    place = content
    for section in sections:
        inner = place.get(section)
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            message = (
                f"changes has {name!r}, but {section} is {inner!r} and holds no keys. Set "
                f"{section!r} as a whole."
            )
            raise ConfigurationError(message)
        place = inner
    place[key] = value
