"""Small pictures with a strong signal, and the DICOM forms in which hospitals store them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from tests.client.dicom_files import image, slices, uid

Bytes = NDArray[np.uint8]
#: Red and blue of about one luminance: grey values alone do not tell them apart.
RED, BLUE = (190, 70, 70), (60, 110, 230)


def disc(shape: tuple[int, int], center: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    """Return a filled circle."""
    rows, columns = np.indices(shape)
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


def skin(rng: np.random.Generator, *, ill: bool) -> Bytes:
    """Return (rows, columns, 3) of skin with a spot, whose hue is the diagnosis."""
    shape = 40, 48
    picture = np.full((*shape, 3), (215, 180, 160), np.float64)
    center = rng.uniform(14, 26), rng.uniform(14, 34)
    picture[disc(shape, center, rng.uniform(7, 11))] = RED if ill else BLUE
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)


def planar(dataset: FileDataset, values: Bytes) -> FileDataset:
    """Return the RGB image with one plane a colour (PS3.3 C.7.6.3.1.3)."""
    dataset.PlanarConfiguration = 1
    dataset.PixelData = np.ascontiguousarray(np.moveaxis(values, -1, 0)).tobytes()
    return dataset


def jpeg_422(dataset: FileDataset, values: Bytes) -> FileDataset:
    """Return the image as lossy JPEG with halved colour, as cameras and scopes send it."""
    written = io.BytesIO()
    Image.fromarray(values).save(written, "JPEG", quality=90, subsampling="4:2:2")
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([written.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.LossyImageCompression = "01"
    return dataset


def scan(rng: np.random.Generator, kind: str) -> NDArray[np.int16]:
    """Return (slices, rows, columns) in Hounsfield units: nothing, calcium or fat in it."""
    volume = rng.normal(40, 15, (8, 32, 32))
    if kind != "healthy":
        spot = disc((32, 32), (rng.uniform(10, 22), rng.uniform(10, 22)), 5)
        volume[3:5, spot] = 400 if kind == "calcium" else -150
    return volume.round().astype(np.int16)


def ct(volume: NDArray[np.int16], patient: str, syntax: str) -> list[FileDataset]:
    """Return a series of 12-bit stored values whose zero is -1024 HU, compressed or not."""
    made = slices((volume + 1024).astype(np.uint16), patient)
    for dataset in made:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.BitsStored, dataset.HighBit = 12, 11
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif syntax == JPEG2000Lossless:
            dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return made


def chest(rng: np.random.Generator, findings: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return a 12-bit X-ray: a bright spot, a bright bar, or both, or neither."""
    picture = rng.normal(1500, 120, (40, 32))
    if findings[0]:
        picture[disc((40, 32), (rng.uniform(8, 16), rng.uniform(8, 24)), 4)] += 1600
    if findings[1]:
        row = rng.integers(26, 34)
        picture[row : row + 2, 3:29] += 1600
    return picture.clip(0, 4095).astype(np.uint16)


def xray(
    values: NDArray[np.uint16], patient: str, study: str = "S1", *, inverted: bool
) -> FileDataset:
    """Return a chest X-ray; inverted stores bright as low values (MONOCHROME1)."""
    dataset = image(4095 - values if inverted else values, patient, study)
    dataset.Modality = "DX"
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    return dataset


def mammogram(values: NDArray[np.uint16], patient: str, study: str) -> FileDataset:
    """Return the picture as 12 signed bits whose rescale brings them back above zero."""
    dataset = image((values.astype(np.int32) - 2048).astype(np.int16), patient, study)
    dataset.Modality = "MG"
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 2048
    return dataset


def clip(rng: np.random.Generator, patient: str, *, ill: bool) -> FileDataset:
    """Return an ultrasound clip of three frames, bright in the middle where ill."""
    frames = rng.normal(60, 15, (3, 32, 40))
    if ill:
        frames[:, disc((32, 40), (rng.uniform(10, 22), rng.uniform(10, 30)), 6)] += 120
    dataset = image(frames.clip(0, 255).astype(np.uint8), patient, patient)
    dataset.Modality = "US"
    return dataset


def mr(rng: np.random.Generator) -> tuple[NDArray[np.uint16], Bytes, Bytes]:
    """Return (slices, rows, columns) with a body, and the masks of its rim and its core."""
    volume = rng.normal(300, 40, (8, 24, 24))
    row, column = rng.uniform(9, 15, 2)
    rim, core = (np.zeros(volume.shape, np.uint8) for _ in range(2))
    rim[2:6, disc((24, 24), (row, column), 5)] = 1
    core[2:6, disc((24, 24), (row, column), 2.2)] = 1
    rim[core > 0] = 0
    volume[rim > 0] += 500
    volume[core > 0] += 1000
    return volume.clip(0).astype(np.uint16), rim, core


def mr_series(volume: NDArray[np.uint16], patient: str) -> list[FileDataset]:
    """Return an MR series with all that a segmentation must be able to refer to."""
    made = slices(volume, patient)
    for number, dataset in enumerate(made):
        dataset.Modality = "MR"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.FrameOfReferenceUID = uid(patient, "frame")
        dataset.SliceThickness, dataset.SeriesNumber, dataset.InstanceNumber = 2, 1, number + 1
        dataset.PatientName = "Made^Up"
        for name in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
            setattr(dataset, name, "")
        dataset.ReferringPhysicianName = ""
    return made


def outlined(series: list[FileDataset], masks: tuple[Bytes, ...]) -> FileDataset:
    """Return a DICOM SEG as another library writes it, one segment a mask."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = [
        hd.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=f"part {number + 1}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Kidney,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in range(len(masks))
    ]
    made: FileDataset = hd.seg.Segmentation(
        source_images=series,
        pixel_array=np.stack(masks, -1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    return made
