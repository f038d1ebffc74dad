"""Content of an installed distribution: one hash over the files that it would run.

    file of one of its own folders or modules   counts, with its path and every byte
    entry_points.txt                            counts
    __pycache__                                 does not: each machine compiles anew; not run either
    scripts, METADATA, RECORD                   do not: they hold this machine's paths
    a file that was put into its folders later  counts: the content is another one
    a link                                      counts by where it leads, which is never approved
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.config.extension import ALL_KINDS, Extension, ExtensionKind, normalised

_GROUPS: dict[str, ExtensionKind] = {f"wardround.{kind}": kind for kind in sorted(ALL_KINDS)}


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A distribution as it is installed here."""

    extension: Extension
    files: frozenset[Path]  # its own, with links resolved
    offers: tuple[tuple[ExtensionKind, str], ...]  # kind, and DISTRIBUTION/NAME
    doubts: tuple[str, ...]  # why hospitals would not take it

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
    return _hashed(found)


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
        point.dist.name
        for group in _GROUPS
        for point in importlib.metadata.entry_points(group=group)
        if point.dist is not None
    }
    found = (installed(name) for name in sorted(names))
    return tuple(one for one in found if one is not None)


def _hashed(found: importlib.metadata.Distribution) -> Installed:
    name = normalised(found.name)
    doubts = []
    if _is_editable(found):
        doubts.append("it is installed to be edited (pip install -e); install its wheel")
    if any(path.suffix == ".pth" for path in found.files or ()):
        doubts.append("it brings a .pth file, which runs at every start of Python")
    files = sorted(set(_files(found)))
    digest = hashlib.sha256()
    for place, path in [*files, *_entry_points(found)]:
        digest.update(f"{place},{_file_hash(path)}\n".encode())
    return Installed(
        extension=Extension(
            distribution=name, version=found.version, content=f"sha256:{digest.hexdigest()}"
        ),
        files=frozenset(path.resolve() for _, path in files),
        offers=tuple(
            (_GROUPS[point.group], f"{name}/{point.name}")
            for point in found.entry_points
            if point.group in _GROUPS
        ),
        doubts=tuple(doubts),
    )


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
    own = {point.module.partition(".")[0] for point in found.entry_points if point.group in _GROUPS}
    listed = {path.parts[0] for path in found.files or () if path.parts[0] != ".."}
    listed = {top for top in listed if not top.endswith((".dist-info", ".pth", "__pycache__"))}
    stems = {Path(top).stem for top in listed}
    return listed | {name for name in own if name not in stems}


def _elsewhere(module: str) -> Path | None:
    """Return where Python would import a module from, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.stem == "__init__" else origin


def _below(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        inside = path.relative_to(root)
        if "__pycache__" not in inside.parts and (path.is_symlink() or not path.is_dir()):
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
