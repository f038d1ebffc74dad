"""Loading of an extension: nothing is imported but what was approved, and only after its hash.

What may go wrong, and what becomes of it:

    its files are not those that were approved    refused, nothing imported
    its entry point leads into another's code     refused, nothing imported
    other code stands in front of it on the path  refused, nothing imported
    its import sets torch's switches or hooks     refused, they are put back
    it was changed after this process loaded it   refused: the old code is still in memory
    a compiled file lies beside the source        not run: the source that was hashed is compiled
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from pydantic import ValidationError

from common.config.errors import explain
from common.config.extension import Extension, ExtensionKind, ExtensionUse, distribution_of
from common.extensions.content import Installed, installed
from common.extensions.contract import Arguments
from common.extensions.foreign_code import contract_fault, refusing
from common.extensions.global_state import left_alone
from common.extensions.pinning import mismatch
from common.platform.errors import ExtensionRefused

Contract = TypeVar("Contract")
#: The distributions that a run was approved with.
Pins = Sequence[Extension]
#: Content that this process has loaded, by distribution: Python keeps the first.
_LOADED: dict[str, str] = {}


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
    earlier = _LOADED.get(wanted.distribution, wanted.content)
    if earlier != wanted.content:
        message = (
            f"{wanted.distribution} was changed while this process ran: it holds {earlier} in "
            f"memory, expected {wanted.content}. Start it again."
        )
        raise ExtensionRefused(message)
    point = _entry_point(here, group, name)
    module = _imported(here, point.module, name)
    _LOADED[wanted.distribution] = wanted.content
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


def _imported(here: Installed, module: str, name: str) -> ModuleType:
    """Import a module of the distribution's own files, compiled from what was hashed."""
    _check_own(here, _origin(module.partition(".")[0]), name)
    fails = refusing(f"{name} cannot be imported")
    with fails, left_alone(name), _without_compiled_files():
        found = importlib.import_module(module)
    _check_own(here, getattr(found, "__file__", None), name)
    return found


def _origin(top: str) -> str | None:
    loaded = sys.modules.get(top)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    spec = importlib.util.find_spec(top)
    return None if spec is None else spec.origin


def _check_own(here: Installed, origin: str | None, name: str) -> None:
    if origin is None or Path(origin).resolve() not in here.files:
        message = (
            f"{name} would be imported from {origin}, which is no file of "
            f"{here.extension.distribution}. Remove what stands in front of it on Python's path, "
            "or tell its author to keep to a package of its own."
        )
        raise ExtensionRefused(message)


@contextmanager
def _without_compiled_files() -> Iterator[None]:
    """Let Python compile sources, whatever *.pyc lies beside them: those were not hashed."""
    prefix, writes = sys.pycache_prefix, sys.dont_write_bytecode
    with tempfile.TemporaryDirectory() as empty:
        sys.pycache_prefix, sys.dont_write_bytecode = empty, True
        try:
            yield
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = prefix, writes
