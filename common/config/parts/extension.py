"""Extensions: what a configuration takes from distributions that are not Wardround's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints

from common.config.parts.section import Part

#: DISTRIBUTION/NAME; a distribution's name is normalised as PyPI does it (PEP 503).
EXTENSION_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*/[A-Za-z_][A-Za-z0-9_]{0,62}$"
DISTRIBUTION_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
CONTENT_HASH = r"^sha256:[0-9a-f]{64}$"


def _is_named(given: object) -> object:
    """Refuse a name in one sentence, with what may be meant."""
    if isinstance(given, str) and not is_extension(given):
        message = f"expected DISTRIBUTION/NAME of an installed extension{meant(given)}"
        raise ValueError(message)
    return given


ExtensionName = Annotated[
    str, StringConstraints(pattern=EXTENSION_NAME, max_length=128), BeforeValidator(_is_named)
]
Distribution = Annotated[str, StringConstraints(pattern=DISTRIBUTION_NAME, max_length=64)]
ContentHash = Annotated[str, StringConstraints(pattern=CONTENT_HASH)]
_Plain = float | int | bool | str
#: What an extension is given beside shapes, as its own type reads them.
ExtensionArguments = dict[str, _Plain | tuple[_Plain, ...]]


#: What an extension can give, as the entry points `wardround.KIND` name it.
ExtensionKind = Literal[
    "networks", "backbones", "tasks", "losses", "transforms", "metrics", "aggregators"
]
ALL_KINDS: frozenset[ExtensionKind] = frozenset(get_args(ExtensionKind))
#: Kinds that run beside patients. The others see what was released, where it is merged.
AT_SITES: frozenset[ExtensionKind] = frozenset(
    {"networks", "backbones", "tasks", "losses", "transforms"}
)


class ExtensionUse(Part):
    """Something that a run takes from an extension, and what it is given."""

    name: ExtensionName
    arguments: ExtensionArguments = Field(default={}, exclude_if=lambda given: not given)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a dict has none of its own


def _by_name(content: object) -> object:
    """Take a name without arguments for what it is."""
    return {"name": content} if isinstance(content, str) else content


#: Written as `their-package/name`, or {name: their-package/name, arguments: {...}}.
NamedExtension = Annotated[
    ExtensionUse, BeforeValidator(_by_name, json_schema_input_type=ExtensionName | ExtensionUse)
]


class Extension(Part):
    """An installed distribution, as it was approved: no other content of it is run."""

    distribution: Distribution
    version: str = Field(min_length=1, max_length=64)
    #: SHA-256 over its installed files (docs/extensions.md says which).
    content: ContentHash


def is_extension(name: str) -> bool:
    """Return whether a name is DISTRIBUTION/NAME, not one of ours."""
    return re.fullmatch(EXTENSION_NAME, name) is not None


def meant(name: str) -> str:
    """Return a question for the name that somebody may have meant, or nothing."""
    distribution, *rest = re.split(r"[/.:]+", name.strip(), maxsplit=1)
    near = "/".join([normalised(distribution), *rest])
    return f". Did you mean {near}?" if is_extension(near) else ""


def nearest(name: str, offered: Iterable[str]) -> str:
    """Return a question for the offered name that is nearest to one that is not, or nothing."""
    near = difflib.get_close_matches(name, list(offered), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def distribution_of(name: str) -> str:
    """Return the distribution of DISTRIBUTION/NAME."""
    return name.partition("/")[0]


def normalised(distribution: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def ours_or_named(ours: tuple[str, ...]) -> BeforeValidator:
    """Refuse what is neither ours nor an extension's, in one sentence for both."""

    def check(given: object) -> object:
        if not isinstance(given, str) or given in ours or is_extension(given):
            return given
        near = difflib.get_close_matches(given, ours, n=1, cutoff=0.5)
        hint = f". Did you mean {near[0]}?" if near else meant(given)
        names = ", ".join(f"'{name}'" for name in ours)
        message = f"expected {names}, or DISTRIBUTION/NAME of an installed extension{hint}"
        raise ValueError(message)

    return BeforeValidator(check)
