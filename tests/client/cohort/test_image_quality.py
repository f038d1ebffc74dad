"""Every rule of quality on real files, through the index; what it costs is the site's decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage

from client.cohort.decode import read_objects
from client.cohort.image_quality import QualityVerdict, side_of
from client.cohort.left_out import LeftOut
from client.cohort.pixel_quality import look_at_pixels
from client.cohort.quality_refusals import (
    CohortPaths,
    images_left_out,
    judged,
    reader_of,
    wanted_of,
)
from client.cohort.scan import dicom_files
from client.cohort.select import Grouping
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.pixels.burned_in_text import text_reader
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason
from client.site.quality_section import QualityRules
from common.config.run_config import RunConfig
from tests.client.dicom_files import config_of, image, load, noise, placed, save, uid, write_labels

PATIENTS = 20
Change = Callable[[FileDataset], None]


def site_of(folder: Path, changes: dict[int, Change]) -> Path:
    """Write one CT image a patient, each with what is done to it, and a table of all."""
    site = folder / "site"
    rows = []
    for number in range(PATIENTS):
        patient = f"P{number:02d}"
        dataset = placed(image(noise(8, 9, seed=number), patient, patient), (0, 0, 0))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.BodyPartExamined, dataset.ImageType = "CHEST", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImageLaterality = "L"
        if number in changes:
            changes[number](dataset)
        save(site / f"{patient}.dcm", dataset)
        rows.append({"PatientID": patient, "ill": number % 2, "side": "left"})
    write_labels(site, rows)
    return site


def rows_of(site: Path) -> tuple[Instance, ...]:
    with Index(site.parent / "index.db") as index:
        index.update(site)
        return tuple(index.instances(site))


def verdict(
    site: Path, config: RunConfig | None = None, rules: QualityRules | None = None
) -> QualityVerdict:
    return judged(rows_of(site), config, rules or QualityRules(), site / "labels.csv", None)


def named(found: QualityVerdict) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return left out and warned, by file."""
    left_out = {s.row.path.stem: s.reason for s in found.left_out}
    return left_out, {s.row.path.stem: s.reason for s in found.warned}


def put(**values: object) -> Change:
    def change(dataset: FileDataset) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


SUSPECT: dict[str, tuple[Change, Reason]] = {
    "localizers": (put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), Reason.LOCALIZER),
    "derived": (put(ImageType=["DERIVED", "SECONDARY"]), Reason.DERIVED),
    "burned_in_text": (put(BurnedInAnnotation="YES"), Reason.BURNED_IN_SUSPECT),
    "spacing_outliers": (put(PixelSpacing=[5.0, 5.0]), Reason.SPACING_OUTLIER),
}


@pytest.mark.parametrize("rule", SUSPECT)
def test_what_becomes_of_a_suspect_is_the_sites_decision(rule: str, tmp_path: Path) -> None:
    change, reason = SUSPECT[rule]
    site = site_of(tmp_path, {3: change})
    expected = {"P03": reason}
    for action, found in (
        ("leave_out", (expected, {})),
        ("warn", ({}, expected)),
        ("off", ({}, {})),
    ):
        rules = QualityRules.model_validate({rule: action})
        assert named(verdict(site, rules=rules)) == found


def test_by_default_what_is_proven_is_left_out_and_what_is_suspect_reported(tmp_path: Path) -> None:
    site = site_of(tmp_path, {n: change for n, (change, _) in enumerate(SUSPECT.values())})
    left_out, warned = named(verdict(site))
    assert left_out == {"P00": Reason.LOCALIZER}
    assert set(warned.values()) == {
        Reason.DERIVED,
        Reason.BURNED_IN_SUSPECT,
        Reason.SPACING_OUTLIER,
    }


def test_presentation_images_are_not_derived_and_secondary_captures_are(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        {
            1: put(ImageType=["DERIVED", "PRIMARY"]),
            2: put(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2"),
            3: put(SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4"),
        },
    )
    assert named(verdict(site)) == ({}, {"P02": Reason.DERIVED})


@pytest.mark.parametrize("shared", ["instance", "study"])
def test_one_image_or_study_under_two_patients_is_left_out_of_both(
    shared: str, tmp_path: Path
) -> None:
    def as_of_p05(dataset: FileDataset) -> None:
        if shared == "study":
            dataset.StudyInstanceUID = uid("P05", "P05")
        else:
            dataset.SOPInstanceUID = uid("P05", "P05", "1", 1)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    left_out, _ = named(verdict(site_of(tmp_path, {6: as_of_p05})))
    assert left_out == dict.fromkeys(("P05", "P06"), Reason.PATIENT_TWO_IDS)


def test_what_a_run_asks_for_decides_and_a_header_that_does_not_say_fits(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        {
            1: put(BodyPartExamined="HAND"),
            2: put(BodyPartExamined=""),
            3: put(ImageLaterality="R"),
            4: put(ImageLaterality=""),
        },
    )
    config = config_of(cohort="{images: {size: [16, 16], body_parts: [Chest], laterality: L}}")
    expected = {"P01": Reason.WRONG_BODYPART, "P03": Reason.WRONG_LATERALITY}
    assert named(verdict(site, config))[0] == expected
    assert named(verdict(site))[0] == {}


def test_a_side_that_the_table_denies_is_found(tmp_path: Path) -> None:
    site = site_of(tmp_path, {3: put(ImageLaterality="R"), 4: put(ImageLaterality="B")})
    config = config_of(cohort="{images: {size: [16, 16], laterality_column: side}}")
    assert wanted_of(config, site / "labels.csv").side_in_table(rows_of(site)[0]) == "left"
    assert named(verdict(site, config))[0] == {"P03": Reason.WRONG_LATERALITY}


def test_sides_are_read_in_the_languages_of_tables() -> None:
    assert {side_of(word) for word in ("L", " left ", "LINKS", "gauche", "sin")} == {"L"}
    assert {side_of(word) for word in ("R", "rechts", "Droite")} == {"R"}
    assert {side_of(word) for word in ("", "both", "?", "B")} == {""}


def test_a_few_odd_spacings_do_not_hide_each_other_and_few_series_judge_nobody(
    tmp_path: Path,
) -> None:
    odd: dict[int, Change] = {
        n: put(PixelSpacing=[v, v]) for n, v in ((1, 50.0), (2, 60.0), (3, 0.01))
    }
    _, warned = named(verdict(site_of(tmp_path, odd)))
    assert warned == dict.fromkeys(("P01", "P02", "P03"), Reason.SPACING_OUTLIER)
    few = tuple(row for row in rows_of(tmp_path / "site") if row.path.stem <= "P06")
    assert judged(few, None, QualityRules(), Path("none"), None).warned == ()


# --- pixels --------------------------------------------------------------------------------


def white(dataset: FileDataset) -> None:
    values = np.full((8, 9), 65535, np.uint16)
    values[0] = 7
    dataset.PixelData = values.tobytes()


def same_as(number: int) -> Change:
    return lambda dataset: setattr(dataset, "PixelData", noise(8, 9, seed=number).tobytes())


def test_saturated_and_equal_pixels_are_found_and_blank_ones_prove_nothing(tmp_path: Path) -> None:
    def blank(dataset: FileDataset) -> None:
        dataset.PixelData = bytes(8 * 9 * 2)

    site = site_of(tmp_path, {1: white, 5: same_as(4), 7: blank, 8: blank})
    with PixelStore(tmp_path / "pixels") as store:
        files = dicom_files(site, frozenset())
        read_objects(site, files, lambda _header: None, store, Grouping(by_series=False))
        found = look_at_pixels(rows_of(site), store)
    assert [s.row.path.stem for s in found.saturated] == ["P01"]
    assert sorted(s.row.path.stem for s in found.same_pixels) == ["P04", "P05"]
    assert found.text == ()


def test_a_site_that_leaves_equal_pixels_out_has_them_in_no_cohort(tmp_path: Path) -> None:
    site = site_of(tmp_path, {5: same_as(4)})
    paths = CohortPaths(
        data=site, labels=site / "labels.csv", index=tmp_path / "index.db", cache=tmp_path / "cache"
    )
    config = config_of()
    assert images_left_out(paths, config, QualityRules()) == {}
    refused = images_left_out(paths, config, QualityRules(same_pixels="leave_out"))
    assert {reason for reason, _ in refused.values()} == {Reason.PATIENT_TWO_IDS}
    cohort = load(site, config, tmp_path / "cache", LeftOut(images=refused))
    assert len(cohort.items) == PATIENTS - 2
    assert cohort.reasons()[Reason.PATIENT_TWO_IDS] == 2
    assert set(cohort.sources) == {f"P{n:02d}.dcm" for n in range(PATIENTS) if n not in {4, 5}}


def lettered(text: str) -> np.ndarray:
    """Return a grey picture with white print in it."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("L", (320, 120), 30)
    if text:
        ImageDraw.Draw(picture).text((20, 40), text, fill=255, font=ImageFont.load_default(28))
    return np.asarray(picture)


@pytest.mark.slow
def test_print_in_an_ultrasound_picture_is_read_where_the_site_asks_for_it(tmp_path: Path) -> None:
    for name, text in (("named", "MUELLER ANNA"), ("plain", "")):
        dataset = image(lettered(text), name, name)
        dataset.Modality, dataset.SOPClassUID = "US", "1.2.840.10008.5.1.4.1.1.6.1"
        save(tmp_path / "site" / f"{name}.dcm", dataset)
    rules = QualityRules(read_text=True)
    read = reader_of(rules)
    assert read is not None
    assert text_reader() is not None
    assert reader_of(QualityRules()) is None
    site = tmp_path / "site"
    with PixelStore(tmp_path / "pixels") as store:
        files = dicom_files(site, frozenset())
        read_objects(site, files, lambda _header: None, store, Grouping(by_series=False))
        found = look_at_pixels(rows_of(site), store, read)
    assert [s.row.path.stem for s in found.text] == ["named"]
    assert "MUELLER" not in found.text[0].detail
