"""Sources of every kind and scores of them, for tests of what results say."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from client.results.score import Heatmap, ModelName, Outlines, Quantity, Score
from tests.client.dicom_files import SHARED, image, noise, placed, save, uid
from tests.peers import program

MODEL = ModelName(name="a model", fingerprint="f" * 64, weights="0123456789abcdef" * 4)
CT, MR, US, US_LOOP, CR, ENHANCED_CT = (
    UID(f"1.2.840.10008.5.1.4.1.1.{end}") for end in ("2", "4", "6.1", "3.1", "1", "2.1")
)
PLACES = {
    "PatientName": "Doe^Jane",
    "PatientID": "P1",
    "PatientBirthDate": "19600101",
    "PatientSex": "F",
    "StudyDate": "20200401",
    "StudyTime": "120000",
    "StudyID": "1",
    "ReferringPhysicianName": "",
    "AccessionNumber": "A17",
}


def given(dataset: FileDataset, sop_class: UID, modality: str) -> FileDataset:
    """Return an image as that modality sends it."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = modality
    for name, value in PLACES.items():
        setattr(dataset, name, value)
    return dataset


def volume(folder: Path, count: int = 6) -> tuple[Path, ...]:
    """Write a CT series, its files in no order of place."""
    order = [*range(1, count, 2), *range(0, count, 2)]
    paths = []
    for number in order:
        plane = image(noise(12, 16, seed=number), series="ct", number=number)
        one = placed(plane, (0, 0, number * 2.5))
        one.FrameOfReferenceUID, one.SliceThickness = uid("frame of reference"), 2.5
        paths.append(save(folder / f"{number}.dcm", given(one, CT, "CT")))
    return tuple(paths)


def radiograph(folder: Path) -> tuple[Path, ...]:
    """Write a CR without geometry."""
    one = given(image(noise(40, 50)), CR, "CR")
    return (save(folder / "cr.dcm", one),)


def ultrasound(folder: Path, frames: int = 1) -> tuple[Path, ...]:
    """Write an ultrasound image or loop without a frame of reference."""
    shape = (40, 50) if frames == 1 else (frames, 40, 50)
    one = image(noise(*shape, dtype="uint8", top=250))
    return (save(folder / "us.dcm", given(one, US if frames == 1 else US_LOOP, "US")),)


def enhanced(folder: Path, frames: int = 5) -> tuple[Path, ...]:
    """Write one enhanced multi-frame CT, its frames from head to feet."""
    one = given(image(noise(frames, 12, 16)), ENHANCED_CT, "CT")
    one.FrameOfReferenceUID = uid("frame of reference")
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    one.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in range(frames):
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, -2 * frame]
        group.PlanePositionSequence = [place]
        groups.append(group)
    one.PerFrameFunctionalGroupsSequence = groups
    return (save(folder / "enhanced.dcm", one),)


def labels(frames: int, rows: int, columns: int, structures: int = 2) -> NDArray[np.uint8]:
    """Return a label map in which each structure is in some frames and not in others."""
    found = np.zeros((frames, rows, columns), np.uint8)
    for number in range(1, structures + 1):
        for frame in range(frames):
            if frames == 1 or frame % (structures + 1) != number:
                found[frame, number * 3 : number * 3 + 3, frame + 2 : frame + 7] = number
    return found


def outlined(sources: Sequence[Path], structures: tuple[str, ...] = ("lesion", "spot")) -> Score:
    """Return a segmentation of the sources."""
    headers = [dcmread(path, stop_before_pixels=True) for path in sources]
    frames = sum(int(header.get("NumberOfFrames", 1)) for header in headers)
    drawn = labels(frames, headers[0].Rows, headers[0].Columns, len(structures))
    return Score(
        model=MODEL,
        kind="segmentation",
        sources=tuple(sources),
        quantities=(),
        prediction_set=None,
        coverage=None,
        abstained=None,
        unlike_training=None,
        outlines=Outlines(labels=drawn, structures=structures),
    )


def diagnosed(sources: Sequence[Path]) -> Score:
    """Return a calibrated diagnosis with a heatmap."""
    header = dcmread(sources[0], stop_before_pixels=True)
    heat = np.linspace(0, 1, header.Rows * header.Columns, dtype=np.float32)
    return Score(
        model=MODEL,
        kind="diagnosis",
        sources=tuple(sources),
        quantities=(
            Quantity(
                label="malignant",
                meaning="probability of malignant",
                value=0.8125,
                raw=0.93,
                low=0.7,
                high=0.9,
            ),
            Quantity(label="bösartig", meaning="probability of bösartig", value=0.1, raw=0.2),
        ),
        prediction_set=("malignant",),
        coverage=0.9,
        abstained=None,
        unlike_training=0.25,
        heatmap=Heatmap(
            values=heat.reshape(header.Rows, header.Columns),
            source=0,
            frame=0,
            method="Grad-CAM",
            label="malignant",
        ),
    )


def numbered(sources: Sequence[Path], unit: str = "%") -> Score:
    """Return a predicted number with an interval that holds the truth."""
    ejected = Quantity(
        label="ef",
        meaning="predicted ef",
        value=52.25,
        raw=52.25,
        low=34.5,
        high=70.0,
        unit=unit,
        promise=0.9,
    )
    return replace(
        diagnosed(sources),
        kind="regression",
        quantities=(ejected,),
        prediction_set=None,
        coverage=None,
    )


def faults(path: Path) -> list[str]:
    """Return the errors that dciodvfy names, by both of its ways of checking."""
    found: list[str] = []
    for options in ([], ["-new"]):
        done = subprocess.run(
            [program("dciodvfy"), *options, str(path)],
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        lines = (done.stdout + done.stderr).splitlines()
        assert len(lines) > 0  # it names the class, where it works at all
        found += [line for line in lines if line.startswith("Error")]
    return found


def hippocampus(structures: tuple[str, ...] = ("anterior", "posterior")) -> Score:
    """Return the outlines that a person drew of a public MR volume, as if a model had."""
    folder = min((SHARED / "hippocampus" / "mr-alpha").iterdir())
    sources = sorted(path for path in folder.glob("*.dcm") if path.name != "seg.dcm")
    given_by_person = dcmread(folder / "seg.dcm")
    headers = [dcmread(path, stop_before_pixels=True) for path in sources]
    places = {tuple(h.ImagePositionPatient): number for number, h in enumerate(headers)}
    drawn = np.zeros((len(sources), headers[0].Rows, headers[0].Columns), np.uint8)
    for frame, group in zip(
        given_by_person.pixel_array, given_by_person.PerFrameFunctionalGroupsSequence, strict=True
    ):
        place = places[tuple(group.PlanePositionSequence[0].ImagePositionPatient)]
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        drawn[place][frame > 0] = number if len(structures) > 1 else 1
    return Score(
        model=MODEL,
        kind="segmentation",
        sources=tuple(sources),
        quantities=(),
        prediction_set=None,
        coverage=None,
        abstained=None,
        unlike_training=None,
        outlines=Outlines(labels=drawn, structures=structures),
    )
