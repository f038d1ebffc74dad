"""Loading of an extension: nothing is imported but what was approved, and only after its hash.

What may go wrong, and what becomes of it:

    its files are not those that were approved    refused, nothing imported
    its entry point leads into another's code     refused, nothing imported
    other code stands in front of it on the path  refused, nothing imported
    its import sets torch's switches or hooks     refused, they are put back
    it was changed after this process loaded it   refused: the old code is still in memory
    a compiled file lies beside the source        not run: the source that was hashed is compiled,
                                                  whenever it is imported (hashed_imports.py)
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from types import ModuleType
from typing import TypeVar

from pydantic import ValidationError

from common.config.errors import explain
from common.config.parts.extension import Extension, ExtensionKind, ExtensionUse, distribution_of
from common.extensions.content import Installed, installed, module_of
from common.extensions.contract import Arguments
from common.extensions.foreign_code import contract_fault, refusing
from common.extensions.global_state import left_alone
from common.extensions.hashed_imports import HELD, hold
from common.extensions.pinning import mismatch
from common.platform.errors import ExtensionRefused

Contract = TypeVar("Contract")
#: The distributions that a run was approved with.
Pins = Sequence[Extension]


def load(pins: Pins, kind: ExtensionKind, name: str, wanted: type[Contract]) -> Contract:
    """Return what an extension gives; ExtensionRefused unless it is the approved one."""
    group = f"wardround.{kind}"
    found = _loaded(pins, group, name)
    if not isinstance(found, wanted):
        message = (
            f"{name} of group {group} is {type(found).__name__}, expected a {wanted.__name__} of "
            "common.extensions.contract. Tell its author."
        )
        raise ExtensionRefused(message)
    fault = contract_fault(found)
    if fault is not None:
        message = f"{name} of group {group}: {fault}. Tell its author."
        raise ExtensionRefused(message)
    return found


def checked_arguments(
    kind: type[Arguments], use: ExtensionUse, place: str = "arguments"
) -> Arguments:
    """Return the arguments of a configuration as the extension's own type reads them."""
    remedy = ". They are a pydantic model of its own. Tell its author."
    with refusing(f"{use.name} cannot read its arguments", remedy):
        try:
            return kind.model_validate(use.arguments)
        except ValidationError as error:
            raise ExtensionRefused(explain(error, kind, f"{place} of {use.name}")) from error


def _loaded(pins: Pins, group: str, name: str) -> object:
    wanted = _pin(pins, name)
    here = installed(wanted.distribution)
    # What is installed to be edited is refused where a hospital admits a run, not here.
    fault = mismatch(wanted, here, simulated=True)
    if here is None or fault is not None:
        raise ExtensionRefused(f"{name}: not installed." if fault is None else fault.detail)
    earlier = HELD.get(wanted.distribution, here).extension
    if earlier.content != wanted.content:
        message = (
            f"{wanted.distribution} was changed while this process ran: it holds {earlier.content} "
            f"in memory, expected {wanted.content}. Start it again."
        )
        raise ExtensionRefused(message)
    point = _entry_point(here, group, name)
    _check_own(here, point, name)
    hold(here)
    _hold_others(pins)
    module = _imported(point.module, name)
    try:
        value: object = module
        for part in point.attr.split(".") if point.attr else ():
            value = getattr(value, part)
    except AttributeError as error:
        message = f"{name} leads to {point.value}, which is not there: {error}. Tell its author."
        raise ExtensionRefused(message) from error
    return value


def _pin(pins: Pins, name: str) -> Extension:
    for extension in pins:
        if extension.distribution == distribution_of(name):
            return extension
    message = (
        f"{name} stands in the configuration without version and content of "
        f"{distribution_of(name)} (extensions:). wardround-coordinator run and wardround-simulate "
        "write them in."
    )
    raise ExtensionRefused(message)


def _entry_point(here: Installed, group: str, name: str) -> importlib.metadata.EntryPoint:
    points = importlib.metadata.distribution(here.extension.distribution).entry_points
    for point in points:
        if point.group == group and point.name == name.partition("/")[2]:
            return point
    offered = [other for kind, other in here.offers if group == f"wardround.{kind}"]
    message = f"{name} is none of {', '.join(offered) or 'nothing'} ({group})."
    raise ExtensionRefused(message)


def _hold_others(pins: Pins) -> None:
    """Hold what else the run names: one distribution may import another's modules."""
    for pin in pins:
        if pin.distribution not in HELD:
            here = installed(pin.distribution)
            if here is not None and here.extension == pin:
                hold(here)


def _check_own(here: Installed, point: importlib.metadata.EntryPoint, name: str) -> None:
    """Refuse an entry point that leads into no module of the distribution's own."""
    module = module_of(point)
    top = module.partition(".")[0]
    if not top:
        message = (
            f"{name} leads to {point.value!r} in entry_points.txt, expected module:attribute. "
            "Tell its author."
        )
    elif top in here.modules:
        return
    elif (here.root / top).is_dir():
        message = (
            f"{name} leads to {module}, and the folder {here.root / top} has no __init__.py, so "
            "that other distributions may share it. Its author adds one."
        )
    else:
        message = (
            f"{name} leads to {module}, which is no file of {here.extension.distribution}. Tell "
            "its author to keep to a package of its own."
        )
    raise ExtensionRefused(message)


def _imported(module: str, name: str) -> ModuleType:
    """Import a module of a distribution that is held."""
    with refusing(f"{name} cannot be imported"), left_alone(name):
        return importlib.import_module(module)
