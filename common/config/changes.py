"""Changes of a configuration that a command's options name: KEY=VALUE, with dots between keys.

Public: changed, changes_of, parted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import yaml

from common.config.yaml import read_yaml
from common.platform.errors import ConfigurationError

#: By key, with dots between sections: the value, as YAML is read.
Changes = Mapping[str, object]


def parted(given: str) -> tuple[str, str]:
    """Return key and text of KEY=VALUE; ConfigurationError where it is not one."""
    key, equals, text = given.partition("=")
    if not equals or not all(key.split(".")):
        message = f"{given!r} is no KEY=VALUE, such as training.learning_rate=0.01."
        raise ConfigurationError(message)
    return key.strip(), text.strip()


def value_of(key: str, text: str) -> object:
    """Return a value as YAML reads it; ConfigurationError where it does not."""
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        said = str(error).partition("\n")[0]
        message = f"{key}={text} is no YAML value: {said}."
        raise ConfigurationError(message) from error


def changes_of(given: Sequence[str]) -> dict[str, object]:
    """Return the changes of options KEY=VALUE; ConfigurationError for a key given twice."""
    found: dict[str, object] = {}
    for one in given:
        key, text = parted(one)
        if key in found:
            message = f"{key} is given twice. Give it one value, or vary it with `sweep --vary`."
            raise ConfigurationError(message)
        found[key] = value_of(key, text)
    return found


def changed(content: object, changes: Changes) -> object:
    """Return a configuration's content with values put in; sections that lack are made.

    ConfigurationError where a key leads through something that has no keys.
    """
    result = copy.deepcopy(content)
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = result
        for number, name in enumerate(sections):
            here = place.setdefault(name, {}) if isinstance(place, dict) else None
            if not isinstance(here, dict):
                above = ".".join(sections[: number + 1])
                message = f"{key} cannot be set: {above} is {here!r}, which has no keys."
                raise ConfigurationError(message)
            place = here
        if not isinstance(place, dict):
            message = f"{key} cannot be set: the configuration has no keys."
            raise ConfigurationError(message)
        place[last] = value
    return result
