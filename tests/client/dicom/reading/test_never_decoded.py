"""Pictures that no run takes, by their headers: a slide's label and many slices in one picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import UID

import client.cohort.decode
from client.dicom.deidentify.deidentify import Profile, Withheld, deidentify
from client.dicom.headers.header import parse_header, read_file
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.files import File
from client.dicom.reading.read import read_pixels
from client.dicom.reasons import Reason, UnusableFile
from client.inference.study_reading import SiteRows, read_study
from client.site.pseudonyms import Pseudonyms
from common.platform.errors import CohortError
from tests.client.dicom_files import SHARED, config_of, image, load, noise, save, write_labels

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MR = "1.2.840.10008.5.1.4.1.1.4"


def slide(*kind: str, number: int = 1, sop_class: str = WHOLE_SLIDE) -> FileDataset:
    dataset = image(noise(16, 16, 3, dtype="uint8", top=255), number=number)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.Modality, dataset.ImageType = "SM", list(kind)
    return dataset


def siemens(*kind: str, rows: int = 96) -> FileDataset:
    dataset = image(noise(rows, rows))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(MR)
    dataset.Modality, dataset.Manufacturer = "MR", "SIEMENS"
    dataset.ImageType = list(kind) or ["ORIGINAL", "PRIMARY", "M", "ND"]
    return dataset


def described(path: Path) -> Instance | Quarantined:
    """Return what a header tells, after both ways of reading it said the same."""
    file = File(path=path, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)
    found = read_file(file)
    assert found == parse_header(file)
    return found


def reason_of(path: Path) -> Reason | None:
    found = described(path)
    return found.reason if isinstance(found, Quarantined) else None


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (("ORIGINAL", "PRIMARY", "VOLUME", "NONE"), False),
        (("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"), False),
        (("ORIGINAL", "PRIMARY", "LABEL", "NONE"), True),
        (("ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"), True),
        (("DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"), True),
        (("DERIVED", "PRIMARY", "LOCALIZER", "RESAMPLED"), True),
    ],
)
@pytest.mark.parametrize("sop_class", [WHOLE_SLIDE, "1.2.840.10008.5.1.4.1.1.7"])
def test_a_slides_label_is_refused_by_its_header(
    tmp_path: Path, kind: tuple[str, ...], sop_class: str, *, refused: bool
) -> None:
    dataset = slide(*kind, sop_class=sop_class)
    found = reason_of(save(tmp_path / "s.dcm", dataset))
    assert found is (Reason.SLIDE_LABEL if refused else None)


def test_a_slide_that_shows_its_label_is_refused(tmp_path: Path) -> None:
    for said, reason in (("YES", Reason.SLIDE_LABEL), ("NO", None)):
        dataset = slide("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
        dataset.SpecimenLabelInImage = said
        assert reason_of(save(tmp_path / "s.dcm", dataset)) is reason


def test_a_label_is_neither_decoded_nor_scored_nor_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its series, which holds the tissue too, is used all the same."""
    site = tmp_path / "site"
    tissue = save(site / "tissue.dcm", slide("ORIGINAL", "PRIMARY", "VOLUME", "NONE", number=1))
    label = save(site / "label.dcm", slide("ORIGINAL", "PRIMARY", "LABEL", "NONE", number=2))
    write_labels(site, [{"PatientID": "P1", "ill": 1}])
    decoded: list[str] = []
    whole = client.cohort.decode.read_image

    def noted(file: File) -> object:
        decoded.append(file.path.name)
        return whole(file)

    monkeypatch.setattr(client.cohort.decode, "read_image", noted)
    config = config_of(cohort="{images: {size: [16, 16]}, smallest_cohort: 1}")
    cohort = load(site, config, tmp_path / "cache")
    assert [p.reason for p in cohort.unusable] == [Reason.SLIDE_LABEL]
    assert cohort.sources == ("tissue.dcm",)
    study = read_study([tissue, label], config, SiteRows(labels=None, withdrawn=frozenset()))
    assert [item.place.sources for item in study.items if item.place] == [(tissue,)]
    with pytest.raises(CohortError, match="SLIDE_LABEL"):
        read_study([label], config, SiteRows(labels=None, withdrawn=frozenset()))
    assert decoded == ["tissue.dcm", "tissue.dcm"]
    dataset = slide("ORIGINAL", "PRIMARY", "LABEL", "NONE")
    with pytest.raises(UnusableFile):
        read_pixels(dataset)
    named = save(
        tmp_path / "sc.dcm",
        slide("ORIGINAL", "PRIMARY", "LABEL", "NONE", sop_class="1.2.840.10008.5.1.4.1.1.7"),
    )
    with pytest.raises(Withheld, match="label"):
        deidentify(named, Pseudonyms(key=b"k" * 32), Profile(pixels_checked=True))


def _by_type(dataset: FileDataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def _by_count(dataset: FileDataset) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 9)


def _by_matrix(dataset: FileDataset) -> None:
    block = dataset.private_block(0x0051, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0B, "SH", "32p*32")


def _united(dataset: FileDataset) -> None:
    dataset.Manufacturer, dataset.ImageType = "UIH", ["ORIGINAL", "PRIMARY", "M", "VFRAME"]


def _slice(_dataset: FileDataset) -> None:
    return


def _one_of_one(dataset: FileDataset) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 1)


def _interpolated(dataset: FileDataset) -> None:
    block = dataset.private_block(0x0051, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0B, "SH", "48*48s")


def _other_maker(dataset: FileDataset) -> None:
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    block.add_new(0x0A, "SL", 9)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("change", [_by_type, _by_count, _by_matrix, _united])
def test_many_slices_in_one_picture_are_refused_by_their_own_reason(
    tmp_path: Path, change: Callable[[FileDataset], None], *, implicit: bool
) -> None:
    dataset = siemens()
    change(dataset)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")
    assert reason_of(save(tmp_path / "m.dcm", dataset)) is Reason.MOSAIC


@pytest.mark.parametrize("change", [_slice, _one_of_one, _interpolated, _other_maker])
def test_single_slices_are_no_mosaic(tmp_path: Path, change: Callable[[FileDataset], None]) -> None:
    dataset = siemens()
    change(dataset)
    assert reason_of(save(tmp_path / "m.dcm", dataset)) is None


@pytest.mark.needs_shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="public cohorts are not here")
def test_every_label_of_the_invented_slides_and_nothing_else_is_refused() -> None:
    found = {
        path.name: reason_of(path)
        for path in sorted((SHARED / "slides-invented" / "slides-a").rglob("*.dcm"))
    }
    assert found == {"label.dcm": Reason.SLIDE_LABEL, "level0.dcm": None, "level1.dcm": None}
