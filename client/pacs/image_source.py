"""Interface of every route to the images.

A source lists and fetches; it decides nothing. One of its series is fetched at a time by each of
several threads, so a source is safe to share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, assert_never

from client.dicom.reasons import Reason, UnusableFile
from client.pacs.received_file import Expected, Landed

if TYPE_CHECKING:
    from client.site.pacs_section import PacsConfig

Key = Literal["PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID"]


@dataclass(frozen=True, kw_only=True)
class PacsQuery:
    """What the PACS is asked for at a time."""

    key: Key | None  # None: everything in these dates of this modality
    value: str  # of that key; empty without one
    modality: str  # asked for where there is no key; empty for any
    first_day: str  # of StudyDate, YYYYMMDD; empty for no limit
    last_day: str  # the same

    @property
    def why_not_asked(self) -> str | None:
        """Return why no PACS can be asked for this value; None where it can.

        A backslash parts values (PS3.5 6.2), so none can hold one; and what is nothing but
        wildcards (PS3.4 C.2.2.2.4) asks for everybody.
        """
        if "\\" in self.value:
            return "no value in DICOM can hold a backslash"
        if self.value and not self.value.strip("*?"):
            return "it would ask for everybody"
        return None

    @property
    def dates(self) -> str:
        """A range as PS3.4 C.2.2.2.5 writes it; empty for none."""
        return f"{self.first_day}-{self.last_day}" if self.first_day or self.last_day else ""


@dataclass(frozen=True, kw_only=True)
class RemoteSeries:
    """A series as the PACS describes it."""

    patient: str  # PatientID
    accession: str
    study: str  # StudyInstanceUID
    series: str  # SeriesInstanceUID
    modality: str
    instances: int | None  # NumberOfSeriesRelatedInstances; None where the PACS does not say


#: A value that no patient and no order has; short enough for an AccessionNumber.
NOBODY = "WARDROUND-NOBODY"


def merged(found: Iterable[RemoteSeries]) -> Iterator[RemoteSeries]:
    """Yield each series once: some PACS answer with one match an image, at every level.

    What one answer leaves out is taken from the next.
    """
    by_uid: dict[str, RemoteSeries] = {}
    for one in found:
        seen = by_uid.get(one.series)
        if seen is not None:
            one = replace(  # noqa: PLW2901 - both are the same series
                seen,
                patient=seen.patient or one.patient,
                accession=seen.accession or one.accession,
                modality=seen.modality or one.modality,
                instances=one.instances if seen.instances is None else seen.instances,
            )
        by_uid[one.series] = one
    yield from by_uid.values()


def in_days(day: str, question: PacsQuery) -> bool:
    """Return whether a StudyDate is within a question's days; one that is not told may be."""
    day = day.replace(".", "").replace("-", "")
    first, last = question.first_day, question.last_day
    return not day or ((not first or day >= first) and (not last or day <= last))


def modality_of(series: str, study: Sequence[str]) -> str:
    """Return a series' modality; where it is left out, the only one of its study."""
    return series or (study[0] if len(study) == 1 else "")


class SeriesRefused(Exception):
    """The PACS answers, but does not hand this series out; others may still come."""


class ArrivalObserver(Protocol):
    """Who is told what arrives; safe to call from any thread."""

    def wait(self) -> None:
        """Return when the next object may be taken, as rate and hours allow; may raise Halt."""

    def landed(self, one: Landed) -> None:
        """Take note of an object that is in its place."""

    def refused(self, problem: UnusableFile) -> None:
        """Take note of an object that is no usable file."""


class Halt(Exception):
    """Fetching ends here and now: Ctrl-C, or the PACS's hours are over. Nothing is wrong."""


class ImageSource(Protocol):
    """A route to the images."""

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Yield the series that match, of any modality where a key was given."""

    def instances(self, series: RemoteSeries) -> frozenset[str]:
        """Return the SOP Instance UIDs of a series."""

    def remarks(self) -> tuple[str, ...]:
        """Return what whoever watches should know of the source, once it was asked."""

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Put a series' objects into the data folder: all of them, or the missing ones alone.

        SeriesRefused, Unreachable or TrustRefused say what ended it; what arrived is kept.
        """


def only(series: RemoteSeries) -> Expected:
    """Return a check that refuses objects of other series: no PACS may replace what it likes."""

    def expected(landed: Landed) -> None:
        if (landed.study, landed.series) != (series.study, series.series):
            raise UnusableFile(Reason.UNEXPECTED, "an object of another series")

    return expected


def open_source(pacs: PacsConfig, data: Path) -> AbstractContextManager[ImageSource]:
    """Return the source of a route; it is open inside a with statement."""
    match pacs.route:
        case "dicomweb":
            from client.pacs.dicomweb import dicomweb

            return dicomweb(pacs, data)
        case "c-get":
            from client.pacs.cget import cget

            return cget(pacs, data)
        case "c-move":
            from client.pacs.cmove import cmove

            return cmove(pacs, data)
        case "folder":
            from client.pacs.export_folder import export_folder

            return export_folder(pacs, data)
        case never:
            assert_never(never)
