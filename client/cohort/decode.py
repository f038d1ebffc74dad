"""Decode: the pixels of the files that a run takes, decoded once and kept in the store.

The third step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from client.cohort.scan import scan
from client.cohort.select import Grouping, Owned, Selected, SelectedImage, Wanted, select
from client.dicom.codec.decode import LARGEST_BYTES
from client.dicom.contained import contained
from client.dicom.index.index import Index
from client.dicom.pixels.native import read_image
from client.dicom.pixels.pixel_store import Entry, PixelStore
from client.dicom.quiet import quiet
from client.dicom.reading.files import File
from client.dicom.reading.padding import Padding
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.site.cache import pixels_key

_HEADER = TypeAdapter(Header)
#: Decoders let go of Python's lock, so each core decodes a file of its own.
_THREADS = min(len(os.sched_getaffinity(0)), 8)
#: So many bytes of pixels may wait for being written.
_WAITING_BYTES = 1 << 30
#: What stays so until the file changes; other pixels may be read another time.
_LASTING = frozenset(
    {Reason.TRUNCATED_PIXELS, Reason.DECODE_ERROR, Reason.BAD_VR, Reason.TOO_LARGE}
)

#: Passes images on as they are taken up, e.g. to say how far it is.
Watch = Callable[[Sequence[SelectedImage]], Iterable[SelectedImage]]


@dataclass(frozen=True, kw_only=True)
class Object:
    """A usable object of the folder; its pixels are in the store."""

    path: str  # below the site's folder
    key: str  # in the store
    header: Header
    frame: int | None = None  # the one that is meant; None: all of them


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The objects whose pixels are in the store, in their order, and why not the others."""

    grouping: Grouping
    objects: tuple[Object, ...]
    problems: tuple[Unusable, ...]  # those of the selection too
    #: Series with a file that cannot be used, though the run wants it; see `Grouping.owned`.
    broken_series: frozenset[Owned]


def read_objects(
    site: Path,
    files: Iterable[Path],
    wanted: Wanted,
    store: PixelStore,
    grouping: Grouping,
    index: Index | None = None,
) -> Decoded:
    """Scan, select and decode in one, for whoever wants the objects alone."""
    selected = select(scan(site, files, index), wanted, grouping, store.withdrawn)
    return decode(selected, store, index)


def decode(
    selected: Selected, store: PixelStore, index: Index | None = None, watch: Watch = iter
) -> Decoded:
    """Decode what is not in the store yet; one bad file never stops the others.

    Files that share UIDs are compared, and a series lacks each of its files that cannot be used.
    What lasts of that is noted in the index.
    """
    decoding = _Decoding(selected, store, index)
    # Quiet around all threads, so that none of them puts filters back that another one needs.
    with quiet(), ThreadPoolExecutor(_THREADS) as pool:
        for one in watch(selected.images):
            decoding.take(one, pool)
        decoding.finish()
    store.flush()
    decoding.leave_out_doubles()
    return Decoded(
        grouping=selected.grouping,
        objects=tuple(decoding.objects),
        problems=(*selected.problems, *decoding.problems),
        broken_series=selected.broken_series | decoding.broken,
    )


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """An object whose pixels are being decoded, or are in the store."""

    item: Object
    one: SelectedImage
    pixels: Future[tuple[Header, Pixels]] | None  # None: in the store
    size: int  # bytes of its pixels


@dataclass
class _Decoding:
    """Takes images one after the other, and keeps their order while threads decode them."""

    selected: Selected
    store: PixelStore
    index: Index | None
    objects: list[Object] = field(default_factory=list)
    problems: list[Unusable] = field(default_factory=list)
    broken: set[Owned] = field(default_factory=set)
    waiting: deque[_Waiting] = field(default_factory=deque)
    held: int = 0  # bytes that wait

    def take(self, one: SelectedImage, pool: ThreadPoolExecutor) -> None:
        """Have an image's pixels decoded, if they are not in the store."""
        image, grouping = one.image, self.selected.grouping
        try:
            with contained():
                key = pixels_key(one.path, image.header.patient)
                entry = self.store.find(key)
        except UnusableFile as problem:
            self.problems.append(problem.listed(one.name, grouping.whose(image.header)))
            return
        except OSError as error:
            unreadable = UnusableFile(Reason.UNREADABLE, type(error).__name__)
            self.problems.append(unreadable.listed(one.name))
            return
        item = Object(path=one.name, key=key, header=image.header)
        if entry is not None and entry.stored is not None:
            self.waiting.append(_Waiting(item=item, one=one, pixels=None, size=0))
            return
        size = image.rows * image.columns * image.frames * image.samples
        size *= max(image.bits_allocated // 8, 1)
        if size > LARGEST_BYTES:
            detail = f"{image.frames} x {image.rows} x {image.columns} pixels at once"
            whole = UnusableFile(Reason.TOO_LARGE, detail)
            self.problems.append(whole.listed(one.name, grouping.whose(image.header)))
            return
        while self.waiting and (
            len(self.waiting) > 2 * _THREADS or self.held + size > _WAITING_BYTES
        ):
            self._finish_first()
        file = File(path=one.path, size=image.size, mtime_ns=image.mtime_ns)
        pixels = pool.submit(one.read or read_image, file)
        self.waiting.append(_Waiting(item=item, one=one, pixels=pixels, size=size))
        self.held += size

    def finish(self) -> None:
        """Wait for everything that is being decoded."""
        while self.waiting:
            self._finish_first()

    def _finish_first(self) -> None:
        one = self.waiting.popleft()
        self.held -= one.size
        grouping, header = self.selected.grouping, one.item.header
        try:
            with contained():
                if one.pixels is not None:
                    read, pixels = one.pixels.result()
                    if read != header:
                        raise UnusableFile(Reason.PARTIAL_WRITE, "it changed while it was read")
                    self.store.keep(one.item.key, facts_of(read, pixels), pixels.stored)
            self.objects.append(one.item)
        except UnusableFile as problem:
            self.broken.add(grouping.owned(header.patient, header.series))
            self.problems.append(problem.listed(one.item.path, grouping.whose(header)))
            if self.index is not None and problem.reason in _LASTING:
                self.index.quarantine(one.one.image, problem.listed(one.item.path))

    def leave_out_doubles(self) -> None:
        """Keep one of equal objects, and none where one UID means different images."""
        grouping = self.selected.grouping
        copies: dict[Owned, list[Object]] = defaultdict(list)
        for item in self.objects:
            if item.header.instance:  # without a UID nothing says that two are one
                copies[grouping.owned(item.header.patient, item.header.instance)].append(item)
        left_out: set[str] = set()
        for same in copies.values():
            if len(same) < 2:
                continue
            entries = [self.store.find(item.key) for item in same]
            contents = {(e.facts, e.checksum) for e in entries if e is not None}
            patients = {item.header.patient for item in same}
            reason = Reason.DUP_SOP_SAME if len(contents) == 1 else Reason.DUP_SOP_DIFFERENT
            if len(patients) > 1 and len({checksum for _, checksum in contents}) == 1:
                reason = Reason.PATIENT_TWO_IDS
            refused = same[1:] if reason is Reason.DUP_SOP_SAME else same
            if reason is not Reason.DUP_SOP_SAME:
                self.broken |= {
                    grouping.owned(item.header.patient, item.header.series) for item in same
                }
            left_out |= {item.path for item in refused}
            self.problems += [
                Unusable(
                    reason=reason,
                    what=item.path,
                    detail=f"as {same[0].path}",
                    patient=grouping.whose(item.header),
                )
                for item in refused
            ]
        self.objects = [item for item in self.objects if item.path not in left_out]


def facts_of(header: Header, pixels: Pixels | None) -> str:
    """Return what the store notes of an object: its header, and how values become quantities."""
    facts: dict[str, object] = {"header": asdict(header)}
    if pixels is not None:
        facts |= {"slope": pixels.slope.tolist(), "intercept": pixels.intercept.tolist()}
        if pixels.padding:
            facts["padding"] = [p and [p.lowest, p.highest] for p in pixels.padding]
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
    slope, intercept, padding = lines_of(entry.facts)
    found = Pixels(stored=entry.stored, slope=slope, intercept=intercept, padding=padding)
    return found if item.frame is None else found.frames(slice(item.frame, item.frame + 1))


@lru_cache(maxsize=4096)
def lines_of(
    facts: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[Padding | None, ...]]:
    """Return what makes each frame quantities; random reads ask for the same ones again."""
    found = json.loads(facts)
    padding = tuple(p and Padding(lowest=p[0], highest=p[1]) for p in found.get("padding", ()))
    return np.array(found["slope"], np.float64), np.array(found["intercept"], np.float64), padding
