"""A site's DICOM objects: found in its folder, decoded once, everything else listed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from client.cache import file_key
from client.dicom.read import Header, Pixels, read_dataset, read_header, read_pixels
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.pixel_store import Entry, PixelStore

#: Not DICOM, and no need to say so for each.
_NOT_IMAGES = frozenset({".csv", ".png", ".txt", ".md", ".json", ".html", ".yaml", ".yml", ".xlsx"})
_HEADER = TypeAdapter(Header)

#: Raises UnusableFile for an object that the run does not want.
Wanted = Callable[[Header], None]


@dataclass(frozen=True, kw_only=True)
class Object:
    """A usable object of the folder; its pixels are in the store."""

    path: str  # below the site's folder
    key: str  # in the store
    header: Header


@dataclass(kw_only=True)
class Found:
    """What a folder holds; filled file by file."""

    objects: list[Object] = field(default_factory=list)
    problems: list[Unusable] = field(default_factory=list)
    #: Series with an object that cannot be used, though the run wants it.
    broken_series: set[str] = field(default_factory=set)
    by_series: bool  # what the run does not want is listed once a series, or once a file
    unwanted: set[tuple[Reason, str]] = field(default_factory=set)


def dicom_files(site: Path, masks: frozenset[str]) -> list[Path]:
    """Return the files that may be DICOM, in a fixed order; masks are left out."""
    return sorted(
        path
        for path in site.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in _NOT_IMAGES
        and not path.name.startswith(".")
        and path.relative_to(site).as_posix() not in masks
    )


def read_objects(
    site: Path, files: Iterable[Path], wanted: Wanted, store: PixelStore, *, by_series: bool
) -> Found:
    """Decode what is wanted and not in the store yet; one bad file never stops the others."""
    found = Found(by_series=by_series)
    for path in files:
        name = path.relative_to(site).as_posix()
        try:
            _read_one(path, name, wanted, store, found)
        except UnusableFile as problem:
            found.problems.append(problem.listed(name))
        except OSError as error:
            unreadable = UnusableFile(Reason.UNREADABLE, type(error).__name__)
            found.problems.append(unreadable.listed(name))
    store.flush()
    _leave_out_doubles(found, store)
    return found


def _read_one(path: Path, name: str, wanted: Wanted, store: PixelStore, found: Found) -> None:
    if path.stat().st_size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    key = file_key(path)
    entry = store.find(key)
    dataset = read_dataset(path) if entry is None else None
    header = read_header(dataset) if dataset is not None else header_of(entry)
    if header.patient in store.withdrawn:
        return  # nothing of them is kept, not even a header
    try:
        wanted(header)
    except UnusableFile as problem:
        if problem.reason is Reason.WITHDRAWN:
            return
        if entry is None:
            store.keep(key, facts_of(header, None), None)
        what = header.series if found.by_series else name
        if (problem.reason, what) not in found.unwanted:
            found.unwanted.add((problem.reason, what))
            found.problems.append(problem.listed(what))
        return
    if entry is None or entry.stored is None:
        try:
            pixels = read_pixels(dataset if dataset is not None else read_dataset(path))
        except UnusableFile:
            found.broken_series.add(header.series)
            raise
        store.keep(key, facts_of(header, pixels), pixels.stored)
    found.objects.append(Object(path=name, key=key, header=header))


def _leave_out_doubles(found: Found, store: PixelStore) -> None:
    """Keep one of equal objects, and none where one UID means different images."""
    copies: dict[str, list[Object]] = defaultdict(list)
    for item in found.objects:
        copies[item.header.instance or item.path].append(item)
    left_out: set[str] = set()
    for same in copies.values():
        if len(same) < 2:
            continue
        entries = [store.find(item.key) for item in same]
        contents = {(e.facts, e.checksum) for e in entries if e is not None}
        reason = Reason.DUP_SOP_SAME if len(contents) == 1 else Reason.DUP_SOP_DIFFERENT
        refused = same[1:] if reason is Reason.DUP_SOP_SAME else same
        if reason is Reason.DUP_SOP_DIFFERENT:
            found.broken_series |= {item.header.series for item in same}
        left_out |= {item.path for item in refused}
        found.problems += [
            Unusable(reason=reason, what=item.path, detail=f"as {same[0].path}")
            for item in refused
        ]
    found.objects = [item for item in found.objects if item.path not in left_out]


def facts_of(header: Header, pixels: Pixels | None) -> str:
    """Return what the store notes of an object: its header, and how values become quantities."""
    facts: dict[str, object] = {"header": asdict(header)}
    if pixels is not None:
        facts |= {"slope": pixels.slope.tolist(), "intercept": pixels.intercept.tolist()}
    return json.dumps(facts)


def header_of(entry: Entry | None) -> Header:
    """Return the header of an object in the store."""
    if entry is None:
        raise UnusableFile(Reason.UNREADABLE, "the cache lost it; run again")
    return _HEADER.validate_python(json.loads(entry.facts)["header"])


def pixels_of(item: Object, store: PixelStore) -> Pixels:
    """Return an object's pixels, memory-mapped."""
    entry = store.find(item.key)
    if entry is None or entry.stored is None:
        raise UnusableFile(Reason.UNREADABLE, "the cache lost it; run again")
    slope, intercept = _line(entry.facts)
    return Pixels(stored=entry.stored, slope=slope, intercept=intercept)


@lru_cache(maxsize=4096)
def _line(facts: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept of each frame; random reads ask for the same ones again."""
    found = json.loads(facts)
    return np.array(found["slope"], np.float64), np.array(found["intercept"], np.float64)
