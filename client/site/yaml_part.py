"""Reading of a site's YAML files into types, with uniform errors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from common.config.errors import explain
from common.config.parts.section import Part
from common.config.yaml import read_yaml
from common.platform.errors import ConfigurationError

_P = TypeVar("_P", bound=Part)


def whole_path(path: Path | None) -> Path | None:
    """Return a path of a site's file, which must not depend on where a program starts."""
    if path is not None and not path.is_absolute():
        message = "expected a whole path that begins with /, as the daemon starts elsewhere"
        raise ValueError(message)
    return path


def load_part(
    path: Path, kind: type[_P], *, missing: str = "", keys: str = "keys and values"
) -> _P:
    """Read a YAML file; ConfigurationError names file, key, value and what was expected.

    `missing` says what to do where there is no such file, `keys` what stands in it.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"There is no {path}. {missing}".rstrip()
        raise ConfigurationError(message) from error
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror}. Let the user who runs this read it."
        raise ConfigurationError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text. Save it as UTF-8."
        raise ConfigurationError(message) from error
    except yaml.YAMLError as error:
        message = f"{path} is not YAML: {error}. Correct it and save it again."
        raise ConfigurationError(message) from error
    if not isinstance(content, dict):
        message = f"{path} holds {type(content).__name__}, expected {keys}."
        raise ConfigurationError(message)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, kind, str(path))) from error
