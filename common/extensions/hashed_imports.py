"""Imports of what an extension consists of: the bytes that were hashed, or nothing.

    a module of its own, whenever it is imported   compiled from its source, whose hash is compared
    a compiled file in __pycache__                 not run, nor opened by who loads a file by hand
    a file that came, or was changed, later        refused
    other code that stands in front of it          refused
    a module beside it that nobody installed       refused where the extension imports it

Modules of other distributions are imported as ever.

Public: HELD, hold.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType

from common.extensions.content import Installed, place_of
from common.platform.errors import ExtensionRefused

#: What this process may import of others' code, by distribution, as it was hashed first.
HELD: dict[str, Installed] = {}
_IMPORTLIB = {"importlib", "_frozen_importlib", "_frozen_importlib_external", __name__}


def hold(here: Installed) -> None:
    """Let this process import a distribution's modules from its hashed files alone.

    ExtensionRefused where one is in memory already, from files that nobody hashed.
    """
    distribution = here.extension.distribution
    if distribution in HELD:
        return
    for name, file in _in_memory(here):
        message = (
            f"{name} was imported from {file} before the files of {distribution} were hashed. "
            "Start the program again; if that does not help, import nothing of it before a run."
        )
        raise ExtensionRefused(message)
    HELD[distribution] = here
    if sys.meta_path[0] is not _FINDER:
        sys.meta_path[:] = [_FINDER, *(f for f in sys.meta_path if f is not _FINDER)]
    if not _FINDER.hides:
        sys.addaudithook(_hide_compiled)
        _FINDER.hides = True


def _in_memory(here: Installed) -> Iterator[tuple[str, str | None]]:
    """Yield the modules in memory that are a distribution's own, with their files."""
    covered = cache(lambda folder: here.covers(Path(folder).resolve()))  # which hold many each
    alone = {top.name for top in here.tops}
    for name, module in sorted(sys.modules.items()):
        file: str | None = getattr(module, "__file__", None)
        folder, _, own = (file or "").rpartition(os.sep)
        if (
            _top(name) in here.modules
            or (file is not None and covered(folder))
            or (file is not None and own in alone and here.covers(place_of(file)))
        ):
            yield name, file


class _HashedSource(SourceFileLoader):
    """Compiles the bytes that it is given; no compiled file is read or written."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - whatever its name
        code: CodeType = self.source_to_code(self._source, self.path)
        return code


class _Finder(MetaPathFinder):
    """Stands before Python's own finders, and judges what they find."""

    hides = False  # a hook of Python's cannot be taken back, so there is one

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not HELD:
            return None
        finders = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in finders)
        found = next((spec for spec in specs if spec is not None), None)
        if found is None or found.origin is None:  # a folder alone runs nothing
            return found
        place = place_of(found.origin)
        for here in tuple(HELD.values()):
            if _top(fullname) in here.modules or here.covers(place):
                return _hashed(found, place, here)
            if _is_nobodys(place, here):
                message = (
                    f"{here.extension.distribution} imports {fullname} from {found.origin}, which "
                    "belongs to no installed distribution, nor to its content. Its author puts it "
                    "into the package."
                )
                raise ExtensionRefused(message)
        return found


_FINDER = _Finder()


def _hashed(found: ModuleSpec, place: Path, here: Installed) -> ModuleSpec:
    name, distribution = found.name, here.extension.distribution
    expected = here.files.get(place)
    if expected is None:
        message = (
            f"{name} would be imported from {found.origin}, which is no file of {distribution} as "
            "it was hashed. Remove what stands in front of it on Python's path or was put beside "
            "it, or tell its author to keep to a package of its own."
        )
        raise ExtensionRefused(message)
    source = place.read_bytes()
    if hashlib.sha256(source).hexdigest() != expected:
        message = (
            f"{name} would be imported from {found.origin}, which was changed after {distribution} "
            "was hashed, or is a link. Install it anew, and start the program again."
        )
        raise ExtensionRefused(message)
    if place.suffix != ".py":  # compiled parts count with every byte
        return found
    hashed = importlib.util.spec_from_file_location(
        name,
        place,
        loader=_HashedSource(name, str(place), source),
        submodule_search_locations=found.submodule_search_locations,
    )
    return hashed or found


def _is_nobodys(place: Path, here: Installed) -> bool:
    """Return whether the distribution's code imports what lies beside it and nobody installed."""
    if here.root not in place.parents or not here.covers(_importer()):
        return False
    top = place.relative_to(here.root).parts[0]
    beside = importlib.metadata.distributions(path=[str(here.root)])
    return top == "__pycache__" or not any(top in _tops(one) for one in beside)


def _tops(distribution: importlib.metadata.Distribution) -> Iterable[str]:
    if distribution.files is not None:
        return {path.parts[0] for path in distribution.files}
    names = (distribution.read_text("top_level.txt") or "").split()
    return {*names, *(f"{name}.py" for name in names)}


def _importer() -> Path:
    """Return the file of the code that imports, behind the functions of importlib."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - a finder is not told who asks
    while frame is not None and _top_or_name(frame) in _IMPORTLIB:
        frame = frame.f_back
    return Path() if frame is None else place_of(frame.f_code.co_filename)


def _top_or_name(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__"))
    return name if name == __name__ else _top(name)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _hide_compiled(event: str, given: tuple[object, ...]) -> None:
    """Let compiled files that were not hashed seem absent, so that Python compiles the source."""
    if event != "open" or not HELD or not str(given[0]).endswith(".pyc"):
        return
    file = str(given[0])
    try:
        source = importlib.util.source_from_cache(file)
    except ValueError:
        source = file
    place = place_of(file)
    for here in tuple(HELD.values()):
        if here.covers(place_of(source)) and place not in here.files:
            raise FileNotFoundError(file)
