"""Whole slides: two magnifications of one study are never both items."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from client.inference.study_reading import SiteRows, read_study
from common.platform.errors import CohortError
from tests.client.dicom_files import config_of, image, load, noise, save, uid, write_labels

WHOLE_SLIDE = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
RUN = config_of(cohort="{images: {size: [8, 8]}}")


def level(
    folder: Path,
    name: str,
    microns: float | None,
    *,
    patient: str = "P1",
    study: str = "S",
    frames: int = 3,
) -> str:
    """Write one magnification of a slide and return its SeriesInstanceUID."""
    one = image(noise(frames, 8, 8, seed=len(name), dtype="uint8", top=250), patient, study)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid(patient, study, name)
    one.Modality, one.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    if microns is not None:
        measures, shared = Dataset(), Dataset()
        measures.PixelSpacing = [microns / 1000, microns / 1000]
        shared.PixelMeasuresSequence = [measures]
        one.SharedFunctionalGroupsSequence = [shared]
    save(folder / patient / f"{study}-{name}.dcm", one)
    return str(one.SeriesInstanceUID)


def cohort(site: Path) -> SiteCohort:
    """Load a site beside whose slides a clear one lies."""
    level(site, "a", 0.5, patient="P0")
    return load(site, RUN, site.parent / "cache")


def told(found: SiteCohort) -> set[str]:
    return {p.detail for p in found.unusable if p.reason is Reason.SEVERAL_MAGNIFICATIONS}


@pytest.mark.parametrize("key", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_two_magnifications_of_one_study_are_no_items_and_both_are_named(
    tmp_path: Path, key: str
) -> None:
    site = tmp_path / "s"
    series = level(site, "a", 0.5)
    level(site, "bb", 2.0, frames=2)
    study = str(image(noise(2, 2), "P1", "S").StudyInstanceUID)
    named = {"PatientID": "P1", "StudyInstanceUID": study, "SeriesInstanceUID": series}[key]
    write_labels(
        site,
        [
            {"PatientID": "P0", "StudyInstanceUID": "", "SeriesInstanceUID": "", "ill": 0},
            {
                "PatientID": "P1",
                "StudyInstanceUID": study if key != "PatientID" else "",
                "SeriesInstanceUID": named if key == "SeriesInstanceUID" else "",
                "ill": 1,
            },
        ],
    )
    found = cohort(site)
    assert found.items.pseudonyms == ("P0",)
    assert all("0.5 and 2 microns a pixel" in text for text in told(found))
    assert told(found)


@pytest.mark.parametrize(
    ("microns", "used"),
    [((0.5, 0.51), True), ((0.5, 0.53), False), ((0.5, None), False), ((None, None), False)],
)
def test_magnifications_are_one_within_a_twentieth_and_unknown_is_another(
    tmp_path: Path, microns: tuple[float | None, float | None], *, used: bool
) -> None:
    site = tmp_path / "s"
    for name, size in zip(("a", "bb"), microns, strict=True):
        level(site, name, size, frames=len(name) + 1)
    write_labels(site, [{"PatientID": p, "ill": n} for n, p in enumerate(("P0", "P1"))])
    found = cohort(site)
    assert ("P1" in found.items.pseudonyms) == used
    assert bool(told(found)) != used


def test_studies_of_one_row_are_of_one_magnification(tmp_path: Path) -> None:
    site = tmp_path / "s"
    level(site, "a", 0.5)
    level(site, "a", 0.25, study="T")
    write_labels(site, [{"PatientID": p, "ill": n} for n, p in enumerate(("P0", "P1"))])
    found = cohort(site)
    assert found.items.pseudonyms == ("P0",)
    assert told(found) == {"line 3: 0.25 and 0.5 microns a pixel"}


def test_no_answer_is_given_for_two_magnifications_at_once(tmp_path: Path) -> None:
    level(tmp_path, "a", 0.5)
    level(tmp_path, "bb", 2.0, frames=2)
    files = sorted((tmp_path / "P1").iterdir())
    rows = SiteRows(labels=None, withdrawn=frozenset())
    assert len(read_study(files[:1], RUN, rows).items) == 3
    with pytest.raises(CohortError, match=r"0\.5 and 2 microns a pixel"):
        read_study(files, RUN, rows)
