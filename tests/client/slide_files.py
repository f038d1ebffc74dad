"""Whole slides for tests: pyramids of tissue that is known, in every form that DICOM has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    VLWholeSlideMicroscopyImageStorage,
)

from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance
from client.dicom.reading.files import File
from client.slides.tiles import SlideFiles, slides_of
from tests.client.dicom_files import _base, _item, save, uid

Rgb = NDArray[np.uint8]
Syntax = Literal["native", "jpeg", "jpeg2000"]
GLASS, TISSUE = (243, 243, 243), (200, 80, 160)


def tissue(rows: int, columns: int, seed: int = 0) -> Rgb:
    """Return stained tissue whose lower right quarter is glass; no two tiles are alike."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(-30, 30, (rows // 8 + 1, columns // 8 + 1, 3))
    texture = coarse.repeat(8, 0).repeat(8, 1)[:rows, :columns]
    found = np.clip(np.array(TISSUE) + texture, 0, 255).astype(np.uint8)
    found[rows // 2 :, columns // 2 :] = GLASS
    return found


def frames_of(matrix: Rgb, tile: int) -> list[Rgb]:
    """Return the tiles of a matrix row by row, those at the edges filled up with black."""
    rows, columns = matrix.shape[:2]
    down, across = -(-rows // tile), -(-columns // tile)
    padded = np.zeros((down * tile, across * tile, 3), np.uint8)
    padded[:rows, :columns] = matrix
    return [
        padded[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile]
        for r in range(down)
        for c in range(across)
    ]


def level(
    matrix: Rgb,
    microns: float | None,
    *,
    patient: str = "P1",
    number: int = 1,
    tile: int = 64,
    syntax: Syntax = "native",
    frames: Sequence[Rgb] | None = None,
) -> FileDataset:
    """Return a level of a slide, TILED_FULL."""
    found = _base(VLWholeSlideMicroscopyImageStorage, patient, "S1", "1", number)
    found.Modality, found.InstanceNumber = "SM", number
    found.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    found.FrameOfReferenceUID = uid(patient, "slide")
    found.ContainerIdentifier = patient
    found.SpecimenLabelInImage = "NO"
    found.DimensionOrganizationType = "TILED_FULL"
    found.TotalPixelMatrixRows, found.TotalPixelMatrixColumns = matrix.shape[:2]
    found.Rows = found.Columns = tile
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, "RGB"
    found.PlanarConfiguration, found.PixelRepresentation = 0, 0
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit = 7
    group = _item()
    if microns is not None:
        spacing = _item(PixelSpacing=[microns / 1e3, microns / 1e3], SliceThickness="0.001")
        group.PixelMeasuresSequence = Items([spacing])
    found.SharedFunctionalGroupsSequence = Items([group])
    with_pixels(found, frames_of(matrix, tile) if frames is None else frames, syntax)
    return found


def with_pixels(found: FileDataset, frames: Sequence[Rgb], syntax: Syntax) -> None:
    """Put frames into a level."""
    found.NumberOfFrames = len(frames)
    match syntax:
        case "native":
            data = b"".join(frame.tobytes() for frame in frames)
            found.PixelData = data + b"\0" * (len(data) % 2)
            found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        case "jpeg":
            coded = [imagecodecs.jpeg8_encode(np.ascontiguousarray(f), level=95) for f in frames]
            found.PhotometricInterpretation = "YBR_FULL_422"
            compressed(found, coded, JPEGBaseline8Bit)
        case "jpeg2000":
            coded = [
                imagecodecs.jpeg2k_encode(
                    np.ascontiguousarray(f), codecformat="j2k", reversible=True, mct=True
                )
                for f in frames
            ]
            found.PhotometricInterpretation = "YBR_RCT"
            compressed(found, coded, JPEG2000Lossless)


def compressed(
    found: FileDataset, frames: Sequence[bytes], syntax: UID, fragments: int = 1
) -> None:
    """Put encoded frames into a level."""
    found.NumberOfFrames = len(frames)
    found.PixelData = encapsulate(list(frames), fragments_per_frame=fragments)
    found["PixelData"].is_undefined_length = True
    found["PixelData"].VR = "OB"
    found.file_meta.TransferSyntaxUID = syntax


def sparse(found: FileDataset, places: Sequence[tuple[int, int]], path: str = "1") -> FileDataset:
    """Turn a level into TILED_SPARSE with these first rows and columns, from 0."""
    found.DimensionOrganizationType = "TILED_SPARSE"
    found.PerFrameFunctionalGroupsSequence = Items(
        [
            _item(
                PlanePositionSlideSequence=Items(
                    [
                        _item(
                            RowPositionInTotalImagePixelMatrix=top + 1,
                            ColumnPositionInTotalImagePixelMatrix=left + 1,
                            ZOffsetInSlideCoordinateSystem="0",
                        )
                    ]
                ),
                OpticalPathIdentificationSequence=Items([_item(OpticalPathIdentifier=path)]),
            )
            for top, left in places
        ]
    )
    return found


def instance_of(path: Path) -> Instance:
    """Return what the index holds of a file."""
    status = path.stat()
    found = read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
    assert isinstance(found, Instance), found
    return found


def slide_of(folder: Path, *levels: FileDataset) -> SlideFiles:
    """Write levels and return their one slide."""
    paths = [save(folder / f"{number}.dcm", one) for number, one in enumerate(levels)]
    (found,) = slides_of([instance_of(path) for path in paths])
    return found


def pyramid(patient: str = "P1", seed: int = 0, side: int = 512) -> list[FileDataset]:
    """Return a slide at 0.5 and 2 microns a pixel, and its label."""
    matrix = tissue(side, side, seed)
    small = matrix.reshape(side // 4, 4, side // 4, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    label = level(np.full((64, 64, 3), 7, np.uint8), 20.0, patient=patient, number=3)
    label.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    return [
        level(matrix, 0.5, patient=patient, number=1, syntax="jpeg"),
        level(small, 2.0, patient=patient, number=2, syntax="jpeg"),
        label,
    ]
