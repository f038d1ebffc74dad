"""Extensions: what a configuration takes from distributions that are not Wardround's."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints

from common.config.part import Part

#: DISTRIBUTION/NAME; a distribution's name is normalised as PyPI does it (PEP 503).
EXTENSION_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*/[A-Za-z_][A-Za-z0-9_]{0,62}$"
DISTRIBUTION_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
CONTENT_HASH = r"^sha256:[0-9a-f]{64}$"

ExtensionName = Annotated[str, StringConstraints(pattern=EXTENSION_NAME, max_length=128)]
Distribution = Annotated[str, StringConstraints(pattern=DISTRIBUTION_NAME, max_length=64)]
ContentHash = Annotated[str, StringConstraints(pattern=CONTENT_HASH)]
_Plain = float | int | bool | str
#: What an extension is given beside shapes, as its own type reads them.
ExtensionArguments = dict[str, _Plain | tuple[_Plain, ...]]


class Extension(Part):
    """An installed distribution, as it was approved: no other content of it is run."""

    distribution: Distribution
    version: str = Field(min_length=1, max_length=64)
    #: SHA-256 over its installed files (docs/extensions.md says which).
    content: ContentHash


def is_extension(name: str) -> bool:
    """Return whether a name is DISTRIBUTION/NAME, not one of ours."""
    return re.fullmatch(EXTENSION_NAME, name) is not None


def distribution_of(name: str) -> str:
    """Return the distribution of DISTRIBUTION/NAME."""
    return name.partition("/")[0]


def normalised(distribution: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
