"""A mask of another patient, study or place is refused; overlapping structures keep their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as Items

from client.cohort.site_cohort import SiteCohort
from client.dicom.masks.seg import read_image_segmentation, read_segmentation
from client.dicom.masks.seg_segments import Structures
from client.dicom.reading.read import read_header, read_pixels
from client.dicom.reading.volume import stack_slices
from client.dicom.reasons import Reason
from tests.client.dicom_files import (
    config_of,
    image,
    load,
    noise,
    save,
    segmentation,
    slices,
    uid,
    write_labels,
)
from tests.client.structure_sets import item, structure_set

SHAPE = (8, 16, 16)
Mask = NDArray[np.uint8]


def organ_and_tumour() -> tuple[Mask, Mask]:
    organ, tumour = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    organ[1:4, 2:10, 2:12] = 1
    tumour[2, 4:7, 5:8] = 1
    return organ, tumour


def fractional(dataset: FileDataset) -> FileDataset:
    """Return a SEG of bits as one of fractions."""
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    values = bits[: np.prod(shape)] * np.uint8(255)
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 255
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = values.tobytes()
    return dataset


@pytest.mark.parametrize("kind", [lambda d: d, fractional], ids=["binary", "fractional"])
@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["tumour first", "organ first"])
@pytest.mark.parametrize(
    "structures", [{"organ": (2,), "tumour": (1,)}, {"organ": (0,), "tumour": (1,)}]
)
def test_later_structures_win_whatever_the_order_of_a_segs_frames(
    tmp_path: Path,
    structures: Structures,
    order: tuple[int, int],
    kind: Callable[[FileDataset], FileDataset],
) -> None:
    organ, tumour = organ_and_tumour()
    expected = np.where(tumour, 2, organ)
    masks = {1: tumour, 2: organ}
    series = slices(noise(*SHAPE))
    path = save(tmp_path / "s", kind(segmentation({n: masks[n] for n in order}, series)))
    pixels, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    assert pixels.stored.shape == SHAPE
    assert np.array_equal(read_segmentation(path, SHAPE, geometry, structures), expected)
    for level, dataset in enumerate(series):
        if not organ[level].any():
            continue
        found = read_image_segmentation(path, read_header(dataset), 0, structures)
        assert np.array_equal(found, expected[level])


def test_a_segment_of_several_structures_is_the_last_of_them(tmp_path: Path) -> None:
    organ, tumour = organ_and_tumour()
    series = slices(noise(*SHAPE))
    path = save(tmp_path / "s", segmentation({1: tumour, 2: organ}, series))
    _, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    found = read_segmentation(path, SHAPE, geometry, {"tumour": (1,), "all": (0,)})
    assert np.array_equal(found, 2 * organ)  # as with the values of a PNG


def _patient(mask: FileDataset) -> None:
    mask.PatientID = "P2"


def _issuer(mask: FileDataset) -> None:
    mask.IssuerOfPatientID = "other"


def _frame(mask: FileDataset) -> None:
    mask.FrameOfReferenceUID = uid("another frame")


def _other_images(mask: FileDataset, series: str = "another series") -> None:
    for group in mask.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPInstanceUID = uid("another", source.ReferencedSOPInstanceUID)
    mask.ReferencedSeriesSequence = Items([item(SeriesInstanceUID=uid(series))])


def _other_study(mask: FileDataset) -> None:
    _other_images(mask)
    mask.StudyInstanceUID = uid("another study")
    mask.FrameOfReferenceUID = uid("frame")


def _other_series(mask: FileDataset) -> None:
    _other_images(mask)
    mask.StudyInstanceUID = uid("P1", "study of P1")


def _nameless(mask: FileDataset) -> None:
    for group in mask.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    mask.PatientID = ""


def _as_it_is(_mask: FileDataset) -> None:
    return


def _sibling(mask: FileDataset) -> None:
    _other_series(mask)
    mask.FrameOfReferenceUID = uid("frame")


def _by_frame(mask: FileDataset) -> None:
    _nameless(mask)
    mask.FrameOfReferenceUID = uid("frame")


def cohort_with(
    folder: Path, change: Callable[[FileDataset], None], size: str, kind: str = "seg"
) -> SiteCohort:
    """Return a cohort of one patient whose mask was changed."""
    organ, tumour = organ_and_tumour()
    series = slices(noise(*SHAPE))
    for dataset in series:
        dataset.FrameOfReferenceUID, dataset.IssuerOfPatientID = uid("frame"), "here"
        save(folder / "site" / f"{dataset.SOPInstanceUID}.dcm", dataset)
    if kind == "seg":
        mask = segmentation({1: tumour, 2: organ}, series)
    else:
        mask = structure_set({"organ": organ, "tumour": tumour}, series)
    change(mask)
    save(folder / "site" / "mask.dcm", mask)
    write_labels(folder / "site", [{"PatientID": "P1", "mask": "mask.dcm"}])
    config = config_of(
        "{kind: segmentation, structures: {organ: [2], tumour: [1]}}",
        f"{{images: {{size: {size}, fit: crop}}, smallest_cohort: 1}}",
        "unet",
    )
    return load(folder / "site", config, folder / "cache")


VOLUME, FLAT = "[8, 16, 16]", "[16, 16]"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (_patient, "another patient"),
        (_issuer, "issuer"),
        (_frame, "another frame of reference"),
        (_other_study, "another study"),
        (_other_series, "another series"),
        (_nameless, "names neither"),
    ],
)
def test_a_seg_of_another_patient_study_or_place_is_refused(
    tmp_path: Path, change: Callable[[FileDataset], None], detail: str
) -> None:
    with pytest.raises(Exception, match="MASK_UNUSABLE") as caught:
        cohort_with(tmp_path, change, VOLUME)
    assert detail in str(caught.value)


@pytest.mark.parametrize("change", [_as_it_is, _sibling, _by_frame])
def test_a_seg_of_the_image_or_of_its_frame_of_reference_is_taken(
    tmp_path: Path, change: Callable[[FileDataset], None]
) -> None:
    organ, tumour = organ_and_tumour()
    cohort = cohort_with(tmp_path, change, VOLUME)
    assert np.array_equal(cohort.items.target[0].numpy(), np.where(tumour, 2, organ))


@pytest.mark.parametrize(
    "change", [_patient, _issuer, _frame, _other_study, _other_series, _sibling, _nameless]
)
def test_a_seg_of_another_image_is_refused_for_flat_images(
    tmp_path: Path, change: Callable[[FileDataset], None]
) -> None:
    """No place says where a flat image's pixels lie, so the frame of reference is not enough."""
    with pytest.raises(Exception, match="MASK_UNUSABLE"):
        cohort_with(tmp_path, change, FLAT)


def _foreign_regions(mask: FileDataset) -> None:
    del mask.ReferencedFrameOfReferenceSequence
    for region in mask.StructureSetROISequence:
        region.ReferencedFrameOfReferenceUID = ""
    for region in mask.ROIContourSequence:
        for contour in region.ContourSequence:
            del contour.ContourImageSequence


@pytest.mark.parametrize("change", [_patient, _issuer, _foreign_regions])
def test_contours_of_another_patient_or_of_no_image_are_refused(
    tmp_path: Path, change: Callable[[FileDataset], None]
) -> None:
    assert len(cohort_with(tmp_path / "right", _as_it_is, VOLUME, "rt").items) == 1
    with pytest.raises(Exception, match="MASK_UNUSABLE"):
        cohort_with(tmp_path / "wrong", change, VOLUME, "rt")


def test_the_reason_of_a_refused_mask_is_listed_beside_usable_patients(tmp_path: Path) -> None:
    site = tmp_path / "site"
    organ, _ = organ_and_tumour()
    for patient in ("P1", "P2"):
        series = slices(noise(*SHAPE), patient)
        for dataset in series:
            save(site / f"{dataset.SOPInstanceUID}.dcm", dataset)
        if patient == "P1":
            save(site / "mask.dcm", segmentation({1: organ}, series))
    write_labels(site, [{"PatientID": p, "mask": "mask.dcm"} for p in ("P1", "P2")])
    config = config_of(
        "{kind: segmentation}", f"{{images: {{size: {VOLUME}}}, smallest_cohort: 1}}", "unet"
    )
    cohort = load(site, config, tmp_path / "cache")
    assert cohort.items.pseudonyms == ("P1",)
    assert Reason.MASK_UNUSABLE in cohort.reasons()


def test_a_seg_of_one_flat_image_may_leave_its_frames_unnamed(tmp_path: Path) -> None:
    site, drawn = tmp_path / "site", np.zeros((1, 16, 16), np.uint8)
    drawn[0, 2:5, 3:9] = 1
    picture = image(noise(16, 16), "P1", "S1")
    mask = segmentation({1: drawn}, [picture])
    del mask.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    mask.StudyInstanceUID = picture.StudyInstanceUID
    save(site / "i.dcm", picture)
    save(site / "mask.dcm", mask)
    write_labels(site, [{"PatientID": "P1", "mask": "mask.dcm"}])
    config = config_of(
        "{kind: segmentation}", f"{{images: {{size: {FLAT}}}, smallest_cohort: 1}}", "unet"
    )
    assert int(load(site, config, tmp_path / "cache").items.target.sum()) == 18
