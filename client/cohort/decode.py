"""Image intake: a site's DICOM objects, found, decoded once, everything else listed."""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from client.cohort.found import Found, Object, Owned, may_be_slice
from client.dicom.contained import contained
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.index.index import Index
from client.dicom.pixels.native import read_image
from client.dicom.pixels.store import Entry, PixelStore
from client.dicom.quiet import quiet
from client.dicom.reading.files import File, files_below
from client.dicom.reading.padding import Padding
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.dicom.remarks import Remark
from client.site.cache import pixels_key

_HEADER = TypeAdapter(Header)
#: Decoders let go of Python's lock, so each core decodes a file of its own.
_THREADS = min(len(os.sched_getaffinity(0)), 8)
#: So many bytes of pixels may wait for being written.
_WAITING_BYTES = 1 << 30
#: Reasons for which a file does not even say which series it belongs to.
_UNKNOWN = frozenset({Reason.EMPTY_FILE, Reason.PARTIAL_WRITE, Reason.UNREADABLE})
#: What stays so until the file changes; other pixels may be read another time.
_LASTING = frozenset(
    {Reason.TRUNCATED_PIXELS, Reason.DECODE_ERROR, Reason.BAD_VR, Reason.TOO_LARGE}
)

#: Raises UnusableFile for an object that the run does not want.
Wanted = Callable[[Header], None]


def dicom_files(site: Path, masks: frozenset[str]) -> list[Path]:
    """Return the files that may be DICOM, in a fixed order; masks are left out."""
    return [
        file.path
        for file in files_below(site)
        if not masks or file.path.relative_to(site).as_posix() not in masks
    ]


def read_objects(
    site: Path,
    files: Iterable[Path],
    wanted: Wanted,
    store: PixelStore,
    *,
    by_series: bool,
    index: Index | None = None,
) -> Found:
    """Decode what is wanted and not in the store yet; one bad file never stops the others.

    Files that share UIDs are compared, and a series lacks each of its files that cannot be used.
    Headers come from the index, which is brought up to date, or from the files without one.
    """
    found = Found(by_series=by_series)
    return _read(files, _Intake(site=site, wanted=wanted, store=store, found=found, index=index))


def read_objects_alone(
    site: Path,
    files: Iterable[Path],
    wanted: Wanted,
    store: PixelStore,
    *,
    by_series: bool,
    index: Index | None = None,
) -> Found:
    """Do the same within each PatientID alone.

    A file that does not say whose it is is nobody's, and takes nobody's series with it.
    """
    found = Found(by_series=by_series, by_patient=True)
    return _read(files, _Intake(site=site, wanted=wanted, store=store, found=found, index=index))


def _read(files: Iterable[Path], intake: _Intake) -> Found:
    found, index, store = intake.found, intake.index, intake.store
    if index is not None:
        index.update(intake.site)
    # Quiet around all threads, so that none of them puts filters back that another one needs.
    with quiet(), ThreadPoolExecutor(_THREADS) as pool:
        for path in files:
            intake.take(path, pool)
        intake.finish()
    store.flush()
    _break_series_with_lost_files(intake)
    _leave_out_doubles(found, store)
    return found


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """An object whose pixels are being decoded, or are in the store."""

    item: Object
    image: Instance
    pixels: Future[tuple[Header, Pixels]] | None  # None: in the store
    size: int  # bytes of its pixels


@dataclass(kw_only=True)
class _Intake:
    """Takes files one after the other, and keeps their order while threads decode them."""

    site: Path
    wanted: Wanted
    store: PixelStore
    found: Found
    index: Index | None
    waiting: deque[_Waiting] = field(default_factory=deque)
    held: int = 0  # bytes that wait
    lost: set[Path] = field(default_factory=set)  # folders of files that name no series
    series: dict[Path, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, path: Path, pool: ThreadPoolExecutor) -> None:
        """Look at a file's header, and have its pixels decoded if the run wants it."""
        name = path.relative_to(self.site).as_posix()
        try:
            with contained():
                known = None if self.index is None else self.index.look_up(path)
                one = _header_of(path) if known is None else known
                if isinstance(one, Quarantined):
                    self._refuse(one, path, name)
                elif one.patient not in self.store.withdrawn:  # nothing of them is kept
                    self.series[path.parent].add(one.series)
                    self._admit(one, path, name, pool)
        except UnusableFile as problem:
            self.found.problems.append(problem.listed(name))
        except OSError as error:
            unreadable = UnusableFile(Reason.UNREADABLE, type(error).__name__)
            self.found.problems.append(unreadable.listed(name))

    def _refuse(self, one: Quarantined, path: Path, name: str) -> None:
        if one.reason is Reason.WITHDRAWN or (one.patient and one.patient in self.store.withdrawn):
            return
        if one.series and may_be_slice(one, path):
            self.found.broken_series.add(self.found.owned(one.patient, one.series))
        if one.reason in _UNKNOWN or (not one.series and may_be_slice(one, path)):
            self.lost.add(path.parent)
        self.found.problems.append(
            Unusable(reason=one.reason, what=name, detail=one.detail, patient=one.patient)
        )

    def _admit(self, image: Instance, path: Path, name: str, pool: ThreadPoolExecutor) -> None:
        header = image.header
        try:
            with contained():
                self.wanted(header)
        except UnusableFile as problem:
            self._leave(problem, header, name)
            return
        if self.found.by_series and Remark.LOCALIZER in image.remarks:
            raise UnusableFile(Reason.LOCALIZER)
        key = pixels_key(path, header.patient)
        entry = self.store.find(key)
        item = Object(path=name, key=key, header=header)
        if entry is not None and entry.stored is not None:
            self.waiting.append(_Waiting(item=item, image=image, pixels=None, size=0))
        else:
            size = image.rows * image.columns * image.frames * image.samples
            size *= max(image.bits_allocated // 8, 1)
            while self.waiting and (
                len(self.waiting) > 2 * _THREADS or self.held + size > _WAITING_BYTES
            ):
                self._finish_first()
            file = File(path=path, size=image.size, mtime_ns=image.mtime_ns)
            pixels = pool.submit(read_image, file)
            self.waiting.append(_Waiting(item=item, image=image, pixels=pixels, size=size))
            self.held += size

    def _leave(self, problem: UnusableFile, header: Header, name: str) -> None:
        if problem.reason is Reason.WITHDRAWN:
            return
        what = header.series if self.found.by_series else name
        known = problem.reason, self.found.owned(header.patient, what)
        if known not in self.found.unwanted:
            self.found.unwanted.add(known)
            self.found.problems.append(problem.listed(what, self.found.whose(header)))

    def finish(self) -> None:
        """Wait for everything that is being decoded."""
        while self.waiting:
            self._finish_first()

    def _finish_first(self) -> None:
        one = self.waiting.popleft()
        self.held -= one.size
        try:
            with contained():
                if one.pixels is not None:
                    header, pixels = one.pixels.result()
                    if header != one.item.header:
                        raise UnusableFile(Reason.PARTIAL_WRITE, "it changed while it was read")
                    self.store.keep(one.item.key, facts_of(header, pixels), pixels.stored)
            self.found.objects.append(one.item)
        except UnusableFile as problem:
            header = one.item.header
            self.found.broken_series.add(self.found.owned(header.patient, header.series))
            self.found.problems.append(problem.listed(one.item.path, self.found.whose(header)))
            if self.index is not None and problem.reason in _LASTING:
                self.index.quarantine(one.image, problem.listed(one.item.path))


def _header_of(path: Path) -> Instance | Quarantined:
    status = path.stat()
    return read_file(File(path=path.absolute(), size=status.st_size, mtime_ns=status.st_mtime_ns))


def _break_series_with_lost_files(intake: _Intake) -> None:
    """Where a folder of one series holds a file that cannot even be asked, the series lacks it.

    Not where each patient is looked at alone: how many series lie in a folder is others' doing.
    """
    for folder in intake.lost if not intake.found.by_patient else ():
        if len(intake.series[folder]) == 1:
            intake.found.broken_series |= {("", series) for series in intake.series[folder]}


def _leave_out_doubles(found: Found, store: PixelStore) -> None:
    """Keep one of equal objects, and none where one UID means different images."""
    copies: dict[Owned, list[Object]] = defaultdict(list)
    for item in found.objects:
        copies[found.owned(item.header.patient, item.header.instance or item.path)].append(item)
    left_out: set[str] = set()
    for same in copies.values():
        if len(same) < 2:
            continue
        entries = [store.find(item.key) for item in same]
        contents = {(e.facts, e.checksum) for e in entries if e is not None}
        patients = {item.header.patient for item in same}
        reason = Reason.DUP_SOP_SAME if len(contents) == 1 else Reason.DUP_SOP_DIFFERENT
        if len(patients) > 1 and len({checksum for _, checksum in contents}) == 1:
            reason = Reason.PATIENT_TWO_IDS
        refused = same[1:] if reason is Reason.DUP_SOP_SAME else same
        if reason is not Reason.DUP_SOP_SAME:
            found.broken_series |= {
                found.owned(item.header.patient, item.header.series) for item in same
            }
        left_out |= {item.path for item in refused}
        found.problems += [
            Unusable(
                reason=reason,
                what=item.path,
                detail=f"as {same[0].path}",
                patient=found.whose(item.header),
            )
            for item in refused
        ]
    found.objects = [item for item in found.objects if item.path not in left_out]


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
    return Pixels(stored=entry.stored, slope=slope, intercept=intercept, padding=padding)


@lru_cache(maxsize=4096)
def lines_of(
    facts: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[Padding | None, ...]]:
    """Return what makes each frame quantities; random reads ask for the same ones again."""
    found = json.loads(facts)
    padding = tuple(p and Padding(lowest=p[0], highest=p[1]) for p in found.get("padding", ()))
    return np.array(found["slope"], np.float64), np.array(found["intercept"], np.float64), padding
