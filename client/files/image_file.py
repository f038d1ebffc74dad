"""An image in a file without DICOM headers, as the index and the decoder have those of DICOM.

What a header would say comes from the row that names the file, and from the file's own grid. What
neither says is left empty: modality, part of the body, side, scanner, dates.

Public: NamedFile, describe, read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.dicom.codec.decode import LARGEST_BYTES
from client.dicom.headers.instance import Instance
from client.dicom.quiet import quiet
from client.dicom.reading.files import File
from client.dicom.reading.frame_times import FrameFacts
from client.dicom.reading.read import Header
from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, UnusableFile
from client.files.grid import FileGrid
from client.files.nifti import SUFFIXES, nifti_grid, nifti_pixels
from client.files.picture import picture_grid, picture_pixels

#: Of DICOM (PS3.10 7.1), and where it stands.
_DICM, _PREAMBLE = b"DICM", 128
#: As scanners of slides write them; what they hold is told when they are opened.
SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A file that a row of the table names as an image."""

    path: Path
    name: str  # below the site's folder
    patient: str  # the row's PatientID
    study: str  # what names the row: its file, or that of the series that gives the grid
    several: bool = False  # it may hold several times


def describe(named: NamedFile, *, slide: bool = False) -> Instance:
    """Return what an index would hold of a file; UnusableFile says why it cannot be used.

    A `slide` is not opened here.
    """
    status = named.path.stat()
    if not status.st_size:
        raise UnusableFile(Reason.EMPTY_FILE)
    _check_kind(named.path, slide=slide)
    grid = FileGrid() if slide else _grid(named)
    size = grid.frames * grid.rows * grid.columns * grid.samples * max(grid.bits // 8, 1)
    if size > LARGEST_BYTES:
        detail = f"{grid.frames} x {grid.rows} x {grid.columns} x {grid.samples} values"
        raise UnusableFile(Reason.TOO_LARGE, detail)
    return Instance(
        path=named.path,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        patient=named.patient,
        study=named.study,
        series=named.name,
        rows=grid.rows,
        columns=grid.columns,
        frames=grid.frames,
        samples=grid.samples,
        bits_allocated=grid.bits,
        bits_stored=grid.bits,
        slope=1.0,
        intercept=0.0,
        spacing=grid.spacing,
        positions=grid.positions,
        orientations=grid.orientations,
        # Files of one row are said to lie in one frame, but for those that lie in an atlas.
        frame_of_reference=f"{grid.space} of {named.study}" if grid.space else "",
        aspect=grid.aspect,
        slice_thickness=None,
        number=0,
        remarks=frozenset(),
        each=_times(grid),
        issuer="",
        patient_sex="",
        birth_date="",
        accession="",
        study_date="",
        study_description="",
        patient_age="",
        modality="",
        body_part="",
        series_description="",
        manufacturer="",
        model="",
        instance="",
        sop_class="",
        transfer_syntax="",
        image_type="",
        laterality="",
        burned_in="",
        photometric="",
        units="",
        presentation="",
    )


def read(file: File, named: NamedFile) -> tuple[Header, Pixels]:
    """Return a file's header and pixels; UnusableFile says why it cannot be used."""
    try:
        with quiet():
            header = describe(named).header
            pixels = nifti_pixels(file.path) if _is_nifti(file.path) else picture_pixels(file.path)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, type(error).__name__) from error
    if pixels.stored.shape[:3] != (header.frames, *header.shape):
        detail = f"pixels {pixels.stored.shape[:3]}, header {(header.frames, *header.shape)}"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    return header, pixels


def _grid(named: NamedFile) -> FileGrid:
    with quiet():
        if _is_nifti(named.path):
            return nifti_grid(named.path, several=named.several)
        return picture_grid(named.path)


def _times(grid: FileGrid) -> tuple[FrameFacts, ...]:
    """Return the time of each frame, by its place along the fourth axis; () of one time."""
    if grid.times == 1:
        return ()
    slices = grid.frames // grid.times
    return tuple(
        FrameFacts(temporal_position=float(time))
        for time in range(grid.times)
        for _ in range(slices)
    )


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _check_kind(path: Path, *, slide: bool) -> None:
    with path.open("rb") as file:
        head = file.read(_PREAMBLE + len(_DICM))
    if head[_PREAMBLE:] == _DICM:
        detail = "it is DICOM; write cohort.images.format: dicom, which finds images by their UIDs"
        raise UnusableFile(Reason.FILE_UNKNOWN, detail)
    if slide and path.suffix.lower() not in SLIDES:
        detail = f"expected a slide: {', '.join(one[1:] for one in SLIDES)}"
        raise UnusableFile(Reason.FILE_UNKNOWN, detail)
