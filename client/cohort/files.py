"""Scan and select where the table names each row's image as a file, which has no DICOM header.

In place of `scan.py` and `select.py`: what they return, the steps behind them take. A row with its
files is what a study is in DICOM; each file is a series of one object.

    a path that leaves the site's folder, by dots or by a link    FILE_OUTSIDE
    a file that rows of several patients name                     PATIENT_TWO_IDS, of all of them;
                                                                  not looked for where each patient
                                                                  is looked at alone
    one file as two series                                        AMBIGUOUS_SERIES
    a row of which a file is missing or unusable                  the row is left out, and told once
    a channel that may be missing, and whose cell is empty        zeros
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.cohort.select import Grouping, Selected, SelectedImage, WantedImages
from client.dicom.contained import contained
from client.dicom.quiet import quiet
from client.dicom.reasons import Reason, Unusable, UnusableFile
from client.files.below import file_below, one_name
from client.files.image_file import NamedFile, describe, read
from client.labels.label_table import Labels
from client.series.by_row import RuledImages
from client.series.selection import Fared
from client.slides.openslide_levels import files_beside

#: Returns the file that a cell names.
_Below = Callable[[str], Path]
#: Of one row: a file for each channel; None where it may be missing and is.
_Channels = tuple[SelectedImage | None, ...]


@dataclass(frozen=True, kw_only=True)
class SelectedFiles:
    """The files that a run takes, and which of a row's channels each is."""

    selected: Selected
    ruled: RuledImages


@dataclass
class _Gathered:
    """What is found while rows are gone through."""

    images: list[SelectedImage] = field(default_factory=list)
    problems: list[Unusable] = field(default_factory=list)
    channel: dict[tuple[str, str, str], int] = field(default_factory=dict)
    absent: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)
    fared: dict[int, dict[Fared, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )


def select_files(site: Path, wanted: WantedImages, withdrawn: Collection[str]) -> SelectedFiles:
    """Return the files that rows name, or why not; nobody's who was withdrawn."""
    labels, gathered = wanted.labels, _Gathered()
    below = functools.cache(functools.partial(image_below, site))
    shared = frozenset() if labels.by_patient else _of_several(below, wanted)
    for place in sorted(set(labels.index.values())):
        row = labels.rows[place]
        if row["PatientID"] in withdrawn:
            continue
        try:
            with contained(), quiet():
                channels = tuple(_channels(site, below, row, wanted, shared, gathered))
                _check_one_channel(channels, gathered)
        except UnusableFile as problem:
            told = problem.listed(f"line {labels.lines[place]}", row["PatientID"])
            gathered.problems.append(told)
            continue
        _take(gathered, channels, wanted)
    return SelectedFiles(
        selected=Selected(
            grouping=Grouping(by_series=False, by_patient=labels.by_patient),
            images=tuple(gathered.images),
            problems=tuple(gathered.problems),
            broken_series=frozenset(),
        ),
        ruled=_ruled(gathered, wanted),
    )


def told_by_line(
    problems: Iterable[Unusable], labels: Labels, columns: Sequence[str]
) -> Iterator[Unusable]:
    """Yield what is wrong with a row's file under the row's line, which people look up."""
    lines = {
        one_name(row[column]): (f"line {line}", row["PatientID"])
        for row, line in zip(labels.rows, labels.lines, strict=True)
        for column in columns
        if row[column]
    }
    for one in problems:
        line, patient = lines.get(one_name(one.what), (one.what, one.patient))
        detail = one.detail if line == one.what else f"{one.what}: {one.detail}".rstrip(": ")
        yield Unusable(reason=one.reason, what=line, detail=detail, patient=patient)


def image_below(site: Path, cell: str) -> Path:
    """Return the file that a row names as an image; UnusableFile where it is none."""
    return file_below(site, cell, outside=Reason.FILE_OUTSIDE, missing=Reason.NO_IMAGE)


def _channels(
    site: Path,
    below: _Below,
    row: Mapping[str, str],
    wanted: WantedImages,
    shared: frozenset[Path],
    gathered: _Gathered,
) -> Iterator[SelectedImage | None]:
    """Yield a row's file of each channel; UnusableFile where one cannot be used."""
    rules = wanted.rules
    key = row[rules.file_columns[rules.reference]]
    for place, column in enumerate(rules.file_columns):
        if not row[column]:
            gathered.fared[place]["missing"].add(row["PatientID"])
            if place not in rules.may_lack:
                raise UnusableFile(Reason.MISSING_SERIES, f"column {column} is empty")
            yield None
            continue
        try:
            path = below(row[column])
            if path.resolve() in shared:
                raise UnusableFile(Reason.PATIENT_TWO_IDS, "rows of other patients name it, too")
            for beside in files_beside(path):
                below(os.path.relpath(beside, site))
            name = os.path.relpath(path, site)  # one name, however the table writes it
            named = NamedFile(
                path=path,
                name=name,
                patient=row["PatientID"],
                study=key,
                several=rules.time is not None,
            )
            image = describe(named, slide=rules.slide is not None)
        except UnusableFile as problem:
            detail = f"{column} {row[column]!r}: {problem.detail}".rstrip(": ")
            raise UnusableFile(problem.reason, detail) from problem
        except OSError as error:
            detail = f"{column} {row[column]!r}: {type(error).__name__}"
            raise UnusableFile(Reason.UNREADABLE, detail) from error
        gathered.fared[place]["matched"].add(row["PatientID"])
        yield SelectedImage(
            path=path, name=name, image=image, read=functools.partial(read, named=named)
        )


def _check_one_channel(channels: _Channels, gathered: _Gathered) -> None:
    """Refuse a row of which a file is another channel, too, here or in a row of this patient."""
    seen: dict[tuple[str, str, str], int] = {}
    for place, one in enumerate(channels):
        if one is not None:
            key = one.image.header.key
            if seen.setdefault(key, place) != place or gathered.channel.get(key, place) != place:
                detail = f"the table names {one.name!r} as two different series"
                raise UnusableFile(Reason.AMBIGUOUS_SERIES, detail)


def _take(gathered: _Gathered, channels: _Channels, wanted: WantedImages) -> None:
    held = {place: one for place, one in enumerate(channels) if one is not None}
    first = held[wanted.rules.reference].image
    gathered.images += held.values()
    for place, one in held.items():
        gathered.channel[one.image.header.key] = place
    absent = frozenset(range(len(channels))) - held.keys()
    gathered.absent[first.patient, first.study] = absent


def _ruled(gathered: _Gathered, wanted: WantedImages) -> RuledImages:
    fared: dict[str, dict[str, tuple[str, ...]]] = {
        name: {str(way): tuple(sorted(people)) for way, people in gathered.fared[place].items()}
        for place, name in enumerate(wanted.rules.channel_names)
    }
    return RuledImages(channel=gathered.channel, absent=gathered.absent, fared=fared)


def _of_several(below: _Below, wanted: WantedImages) -> frozenset[Path]:
    """Return the files that rows of several patients name, however they write them."""
    owners: dict[Path, set[str]] = defaultdict(set)
    for row in wanted.labels.rows:
        for column in wanted.rules.file_columns:
            try:
                owners[below(row[column]).resolve()].add(row["PatientID"])
            except UnusableFile:  # told where its row is read
                continue
    return frozenset(path for path, people in owners.items() if len(people) > 1)
