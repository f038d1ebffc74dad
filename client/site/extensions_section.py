"""The list `extensions` of site.yaml: what code of others a hospital allows, by content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, Field

from common.config.parts.extension import ContentHash, Distribution, Extension
from common.config.parts.section import Part


def _one_or_several(content: object) -> object:
    return (content,) if isinstance(content, str) else content


class AllowedExtension(Part):
    """A distribution that somebody here looked at; of another content it is refused."""

    distribution: Distribution
    #: One, or several: builds of one version for different machines.
    content: Annotated[
        tuple[ContentHash, ...], Field(min_length=1), BeforeValidator(_one_or_several)
    ]

    def covers(self, extension: Extension) -> bool:
        """Return whether this is it, to the byte."""
        return self.distribution == extension.distribution and extension.content in self.content


def all_of(extension: Extension) -> AllowedExtension:
    """Return the rule that allows just this."""
    return AllowedExtension(distribution=extension.distribution, content=(extension.content,))


def is_allowed(extension: Extension, allowed: Iterable[AllowedExtension]) -> bool:
    """Return whether somebody here allowed this content of this distribution."""
    return any(one.covers(extension) for one in allowed)


def how_to_allow(extension: Extension) -> str:
    """Return the line of site.yaml that allows it."""
    return f"- {{distribution: {extension.distribution}, content: '{extension.content}'}}"
