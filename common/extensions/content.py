"""Content of an installed distribution: one hash over the files that it would run.

    file of one of its own folders or modules   counts, with its path and every byte
    entry_points.txt                            counts
    *.pyc in __pycache__                        do not: each machine compiles anew; not run either
    scripts, METADATA, RECORD                   do not: they hold this machine's paths
    a file that was put into its folders later  counts: the content is another one
    a link                                      counts by where it leads; is not imported
    installed to be edited (pip install -e)     doubt: hospitals do not take it
    a .pth file                                 doubt: it is run at each start of Python

RECORD's own hash would not do: it holds lines without a hash (*.pyc) and paths of the interpreter,
so that two equal installations differ.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from common.config.parts.extension import ALL_KINDS, Extension, ExtensionKind, normalised
from common.platform.errors import ExtensionRefused

_GROUPS: dict[str, ExtensionKind] = {f"wardround.{kind}": kind for kind in sorted(ALL_KINDS)}

#: A compiled file, or one that Python is just writing, which it names by a number at first.
_COMPILED = re.compile(r"\.pyc(\.\d+)?\Z")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A distribution as it is installed here."""

    extension: Extension
    root: Path  # the folder that it is installed into
    files: Mapping[Path, str]  # its own, by place_of: SHA-256 of the bytes
    tops: frozenset[Path]  # its own folders and modules
    modules: frozenset[str]  # their names, where they can be imported and nobody shares them
    offers: tuple[tuple[ExtensionKind, str], ...]  # kind, and DISTRIBUTION/NAME
    doubts: tuple[str, ...]  # why hospitals would not take it

    def covers(self, place: Path) -> bool:
        """Return whether a place lies in its own folders and modules."""
        return any(top == place or top in place.parents for top in self.tops)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what it offers, of whatever kind."""
        return tuple(dict.fromkeys(name for _, name in self.offers))


def installed(distribution: str) -> Installed | None:
    """Return what is installed under a name, hashed anew, or None; nothing of it is imported."""
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    return _hashed(found, distribution)


def place_of(file: str) -> Path:
    """Return where a file lies, with links on the way resolved; it may be a link itself."""
    path = Path(file)
    return path.parent.resolve() / path.name


def is_installed(distribution: str) -> bool:
    """Return whether there is one of that name; none of its files is read."""
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def offered() -> tuple[Installed, ...]:
    """Return every installed distribution that offers an extension, by name."""
    names = {
        name
        for group in _GROUPS
        for point in importlib.metadata.entry_points(group=group)
        if point.dist is not None and (name := _said(point.dist, "Name"))
    }
    found = (installed(name) for name in sorted(names))
    return tuple(one for one in found if one is not None)


def _hashed(found: importlib.metadata.Distribution, asked: str) -> Installed:
    name = normalised(_said(found, "Name") or asked)
    files = sorted(set(_files(found)))
    hashes = [_file_hash(path) for _, path in files]
    digest = hashlib.sha256()
    for (place, _), one in zip(files, hashes, strict=True):
        digest.update(f"{place},{one}\n".encode())
    for place, path in _entry_points(found):
        digest.update(f"{place},{_file_hash(path)}\n".encode())
    return Installed(
        extension=Extension(
            distribution=name,
            version=_said(found, "Version") or "unknown",
            content=f"sha256:{digest.hexdigest()}",
        ),
        root=Path(str(found.locate_file(""))).resolve(),
        files={place_of(str(path)): one for (_, path), one in zip(files, hashes, strict=True)},
        tops=frozenset(_top_of(place, path) for place, path in files),
        modules=frozenset(module for place, _ in files if (module := _module_of(place))),
        offers=tuple(
            (_GROUPS[point.group], f"{name}/{point.name}")
            for point in found.entry_points
            if point.group in _GROUPS
        ),
        doubts=tuple(_doubts(found)),
    )


def _said(found: importlib.metadata.Distribution, field: str) -> str | None:
    """Return what METADATA says, or None where it does not, or is not there."""
    try:
        return found.metadata[field] or None
    except (KeyError, TypeError):
        return None


def _top_of(place: str, path: Path) -> Path:
    """Return the folder or module beside other distributions' that a file belongs to."""
    above = place_of(str(path)).parents
    inside = place.count("/")
    return above[inside - 1] if inside else place_of(str(path))


def _module_of(place: str) -> str | None:
    """Return the module that a file is, if it stands beside other distributions'; or None."""
    top, _, inside = place.partition("/")
    name = inside or top
    if not name.endswith((".py", ".pyc", *EXTENSION_SUFFIXES)):
        return None
    module = name.partition(".")[0]
    if not inside:
        return module
    return top if module == "__init__" else None


def _doubts(found: importlib.metadata.Distribution) -> Iterator[str]:
    if found.files is None:
        yield (
            "it has no RECORD, so nobody can say what was installed; install its wheel anew "
            "(pip install --force-reinstall)"
        )
    elif _is_editable(found):
        yield "it is installed to be edited (pip install -e); install its wheel"
    if not _said(found, "Name") or not _said(found, "Version"):
        yield "its METADATA does not give name and version; install its wheel anew"
    if any(path.suffix == ".pth" for path in found.files or ()):
        yield "it brings a .pth file, which runs at every start of Python"


def _is_editable(found: importlib.metadata.Distribution) -> bool:
    if found.files is None:
        return True  # no RECORD: nobody knows what was installed
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        return bool(origin.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return True


def _files(found: importlib.metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """Yield (place, path) of every file in the distribution's own folders and modules."""
    root = Path(str(found.locate_file("")))
    for top in sorted(_own(found)):
        path = root / top
        if not path.exists():  # installed to be edited: it lies elsewhere
            path = _elsewhere(path.stem) or path
        if path.is_dir():
            yield from _below(path, path.parent)
        elif path.is_file():
            yield path.name, path


def _own(found: importlib.metadata.Distribution) -> set[str]:
    """Return the folders and modules beside other distributions' that are this one's."""
    points = [point for point in found.entry_points if point.group in _GROUPS]
    # RECORD says which are its own, but of what is installed to be edited.
    given = [module_of(point) for point in points] if _is_editable(found) else []
    own = {module.partition(".")[0] for module in given if module}
    listed = {path.parts[0] for path in found.files or () if path.parts[0] != ".."}
    listed = {top for top in listed if not top.endswith((".dist-info", ".pth", "__pycache__"))}
    stems = {Path(top).stem for top in listed}
    return listed | {name for name in own if name not in stems}


def module_of(point: importlib.metadata.EntryPoint) -> str:
    """Return the module that an entry point leads to; nothing where it leads to nothing."""
    return point.module if point.pattern.match(point.value) else ""


def _elsewhere(module: str) -> Path | None:
    """Return where Python would import a module from, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, ExtensionRefused):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.stem == "__init__" else origin


def _below(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        inside = path.relative_to(root)
        compiled = "__pycache__" in inside.parts and _COMPILED.search(path.name)
        if not compiled and (path.is_symlink() or not path.is_dir()):
            yield inside.as_posix(), path


def _entry_points(found: importlib.metadata.Distribution) -> list[tuple[str, Path]]:
    files = found.files or ()
    return [
        ("entry_points.txt", Path(str(path.locate())))
        for path in files
        if path.name == "entry_points.txt" and path.parts[0].endswith(".dist-info")
    ]


def _file_hash(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
