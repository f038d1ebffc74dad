"""From one file's header to a row of the index: an image, or the reason why it is none."""

from __future__ import annotations

from client.dicom.contained import contained
from client.dicom.headers.checks import Scan
from client.dicom.headers.elements import Elements, UnusualHeader
from client.dicom.headers.instance import Instance, Quarantined, describe
from client.dicom.headers.parsed import parse
from client.dicom.headers.scanned import scan
from client.dicom.quiet import quiet
from client.dicom.reading.files import UNNAMED, File
from client.dicom.reasons import Reason, UnusableFile


def read_file(file: File) -> Instance | Quarantined:
    """Return what a file's header tells: by the scanner in the easy case, else by pydicom."""
    try:
        with contained():
            return _read(file)
    except UnusableFile as problem:
        return Quarantined(reason=problem.reason, what=str(file.path), detail=problem.detail)


def _read(file: File) -> Instance | Quarantined:
    if file.size == UNNAMED:
        return Quarantined(
            reason=Reason.UNREADABLE, what=str(file.path), detail="its name is not UTF-8; rename it"
        )
    try:
        found = scan(file.path, file.size)
        return _described(file, found)
    except UnusualHeader:
        return parse_header(file)
    except OSError as error:
        return Quarantined(
            reason=Reason.UNREADABLE, what=str(file.path), detail=type(error).__name__
        )


def parse_header(file: File) -> Instance | Quarantined:
    """Return the same by pydicom alone: the scanner's readable twin."""
    try:
        if file.size == 0:
            raise UnusableFile(Reason.EMPTY_FILE)
        with quiet():
            return _described(file, parse(file.path, file.size))
    except UnusableFile as problem:
        return Quarantined(reason=problem.reason, what=str(file.path), detail=problem.detail)
    except OSError as error:
        return Quarantined(
            reason=Reason.UNREADABLE, what=str(file.path), detail=type(error).__name__
        )


def _described(file: File, found: Scan) -> Instance | Quarantined:
    try:
        return describe(file, found)
    except (UnusableFile, UnusualHeader, OSError) as problem:
        if not isinstance(problem, UnusableFile):
            raise
        refusal = problem
    except Exception as error:  # noqa: BLE001
        # pydicom converts values when they are asked for, and each type raises its own kind.
        refusal = UnusableFile(Reason.BAD_VR, str(error)[:120])
    return Quarantined(
        reason=refusal.reason,
        what=str(file.path),
        detail=refusal.detail,
        patient=_known(found.elements, "PatientID"),
        study=_known(found.elements, "StudyInstanceUID"),
        series=_known(found.elements, "SeriesInstanceUID"),
        description=" ".join(
            filter(None, (_known(found.elements, n) for n in ("SeriesDescription", "ProtocolName")))
        ),
    )


def _known(elements: Elements, keyword: str) -> str:
    """Return an identifier, or nothing where a broken header does not give it."""
    try:
        return elements.text(keyword)
    except UnusualHeader:
        raise
    except Exception:  # noqa: BLE001 - as above
        return ""
