"""Pinning: version and content of what is installed here, written into a configuration.

Coordinator, site and simulation pin alike, so that one file has one hash wherever the same
distributions are installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.config.parts.extension import (
    ALL_KINDS,
    AT_SITES,
    Extension,
    ExtensionKind,
    distribution_of,
    nearest,
)
from common.config.run_config import RunConfig
from common.extensions.content import Installed, installed
from common.platform.errors import ExtensionRefused


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """What keeps an extension from being the approved one here."""

    kind: Literal["not_installed", "other_content", "doubtful"]
    detail: str  # with what to do


def pinned(config: RunConfig, *, simulated: bool = False, at_site: bool = False) -> RunConfig:
    """Return the run with every extension that it names written out, as installed here.

    ExtensionRefused where one is not installed, offers no such name, or is not what the
    configuration says already. A simulation takes what is installed to be edited, too. A site
    believes what the configuration says of what it does not run itself.
    """
    uses = config.extension_uses()
    if not uses:
        return config
    given = {extension.distribution: extension for extension in config.extensions}
    run_here = {
        distribution_of(n) for n in config.extension_names(AT_SITES if at_site else ALL_KINDS)
    }
    found: dict[str, Extension] = {}
    for kind, use in uses:
        distribution = distribution_of(use.name)
        if distribution not in run_here and distribution in given:
            found[distribution] = given[distribution]
            continue
        here = _installed(distribution)
        _check_offered(here, kind, use.name)
        wanted = given.get(distribution, here.extension)
        fault = mismatch(wanted, here, simulated=simulated)
        if fault is not None:
            raise ExtensionRefused(fault.detail)
        found[distribution] = here.extension
    return config.model_copy(update={"extensions": tuple(found[name] for name in sorted(found))})


def doubts(config: RunConfig) -> list[str]:
    """Return what hospitals would refuse of the extensions of a simulation, with what to do."""
    found = [installed(extension.distribution) for extension in config.extensions]
    return [
        f"Hospitals will not take {one.extension.distribution}: {doubt}."
        for one in found
        if one is not None
        for doubt in one.doubts
    ]


def mismatch(
    wanted: Extension, here: Installed | None, *, simulated: bool = False
) -> Mismatch | None:
    """Return why what is installed here is not what was approved, or None where it is."""
    name = wanted.distribution
    if here is None:
        return Mismatch(kind="not_installed", detail=_how_to_install(name, wanted.version))
    if here.extension != wanted:
        detail = (
            f"{name} is installed as {said(here.extension)}, expected {said(wanted)}. Install the "
            f"same build of it everywhere (pip install {name}=={wanted.version}), and change "
            "nothing in it."
        )
        return Mismatch(kind="other_content", detail=detail)
    if here.doubts and not simulated:
        return Mismatch(kind="doubtful", detail=f"{name} cannot be vouched for: {here.doubts[0]}.")
    return None


def said(extension: Extension) -> str:
    """Return version and content, as people compare them."""
    return f"version {extension.version}, {extension.content}"


def _installed(distribution: str) -> Installed:
    here = installed(distribution)
    if here is None:
        raise ExtensionRefused(_how_to_install(distribution, None))
    return here


def _how_to_install(distribution: str, version: str | None) -> str:
    wanted = distribution if version is None else f"{distribution}=={version}"
    return (
        f"The extension {distribution} is not installed here. Install it beside Wardround: "
        f"pip install {wanted}"
    )


def _check_offered(here: Installed, kind: ExtensionKind, name: str) -> None:
    if (kind, name) not in here.offers:
        offers = ", ".join(f"{other} ({of})" for of, other in here.offers) or "nothing"
        message = (
            f"{name} is not offered by {here.extension.distribution} {here.extension.version} "
            f"under wardround.{kind}; it offers {offers}."
            f"{nearest(name, (other for of, other in here.offers if of == kind))}"
        )
        raise ExtensionRefused(message)
