"""Tiles of 256 pixels out of a whole slide, a second, one thread.

    python benchmarks/slide_tiles.py

A slide of 32 x 32 tiles in JPEG, as DICOM. The peer is wsidicom, where it is installed (pip install
wsidicom); that both give the same pixels is checked before anything is timed. The goal is that
reading is no part of the time that a backbone takes (50 ms a tile).
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

sys.path.insert(0, str(Path(__file__).parents[1]))

from row import Row, not_measured, shown, told

from client.slides.frames import FrameReader
from client.slides.levels import levels_of

TILES, SIDE, REPEATS = 32, 256, 5
GOAL = 150.0


def rows() -> list[Row]:
    """Measure and return the rows."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = _slide(Path(folder) / "slide.dcm")
        found.append(
            shown(
                Row(
                    name="slide: tiles of 256 px a second",
                    measured=_rate(path, _ours),
                    relation=">=",
                    goal=GOAL,
                )
            )
        )
        if importlib.util.find_spec("wsidicom") is None:
            what = "the Python package wsidicom"
            return [*found, not_measured("slide: tiles a second / wsidicom", what)]
        if not all(map(np.array_equal, _ours(path, 2), _wsidicom(path, 2))):
            sys.exit("wsidicom gives other pixels; nothing was timed against it.")
        ours, peer = (_rate(path, read) for read in (_ours, _wsidicom))
        found.append(
            shown(
                Row(
                    name="slide: tiles a second / wsidicom",
                    measured=ours / peer,
                    relation=">=",
                    goal=1.0,
                    detail=f"{ours:.0f} and {peer:.0f} tiles a second",
                )
            )
        )
    return found


def _rate(path: Path, read: Callable[[Path, int], list[NDArray[np.uint8]]]) -> float:
    """Return the median of tiles a second."""
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        count = len(read(path, TILES))
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def _ours(path: Path, down: int) -> list[NDArray[np.uint8]]:
    (level,) = levels_of([path])
    with FrameReader(level) as reader:
        return [
            reader.region(r * SIDE, c * SIDE, SIDE, SIDE) for r in range(down) for c in range(TILES)
        ]


def _wsidicom(path: Path, down: int) -> list[NDArray[np.uint8]]:
    from wsidicom import WsiDicom

    with WsiDicom.open(path) as slide:
        return [
            np.asarray(slide.read_region((c * SIDE, r * SIDE), 0, (SIDE, SIDE)))[..., :3]
            for r in range(down)
            for c in range(TILES)
        ]


def _slide(path: Path) -> Path:
    """Write a slide of stained noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(90, 240, (TILES, SIDE // 8, SIDE // 8, 3), np.uint8)
    frames = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(one.repeat(8, 0).repeat(8, 1)), level=85)
        for one in coarse
    ]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID, found.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    found.StudyInstanceUID, found.SeriesInstanceUID = generate_uid(), generate_uid()
    found.FrameOfReferenceUID, found.ContainerIdentifier = generate_uid(), "S"
    found.Modality, found.PatientID, found.InstanceNumber = "SM", "S", 1
    found.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    found.DimensionOrganizationType, found.SpecimenLabelInImage = "TILED_FULL", "NO"
    found.AcquisitionDateTime, found.FocusMethod = "20200101", "AUTO"
    found.TotalPixelMatrixRows = found.TotalPixelMatrixColumns = TILES * SIDE
    found.ImagedVolumeWidth = found.ImagedVolumeHeight = TILES * SIDE / 2000
    found.ImagedVolumeDepth = 0.001
    found.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    found.TotalPixelMatrixOriginSequence = Sequence([origin])
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    light = Dataset()
    light.CodeValue, light.CodingSchemeDesignator = "111744", "DCM"
    light.CodeMeaning = "Brightfield illumination"
    optical.IlluminationTypeCodeSequence = Sequence([light])
    found.OpticalPathSequence = Sequence([optical])
    found.NumberOfOpticalPaths = found.TotalPixelMatrixFocalPlanes = 1
    found.ExtendedDepthOfField, found.LossyImageCompression = "NO", "01"
    found.VolumetricProperties, found.BurnedInAnnotation = "VOLUME", "NO"
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.0005, 0.0005], 0.001
    group.PixelMeasuresSequence = Sequence([measures])
    found.SharedFunctionalGroupsSequence = Sequence([group])
    found.Rows = found.Columns = SIDE
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, "YBR_FULL_422"
    found.PlanarConfiguration, found.PixelRepresentation = 0, 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8, 8, 7
    found.NumberOfFrames = TILES * TILES
    found.PixelData = encapsulate(frames * TILES)
    found["PixelData"].VR, found["PixelData"].is_undefined_length = "OB", True
    found.save_as(path, enforce_file_format=True)
    return path


if __name__ == "__main__":
    told(rows)
