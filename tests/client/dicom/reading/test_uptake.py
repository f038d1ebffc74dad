"""SUV by body weight, against the formula by hand."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from client.cohort.series_choice import check_kind
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.reading.files import File
from client.dicom.reading.read import Header
from client.dicom.reading.uptake import suv_factor
from client.dicom.reasons import Reason, UnusableFile
from common.config.run_config import Images
from tests.client.dicom_files import config_of, image, load, noise, placed, save, write_labels

PET = UID("1.2.840.10008.5.1.4.1.1.128")
SCAN = datetime(2020, 3, 1, 0, 40)  # noqa: DTZ001 - a scanner's clock has no zone
#: 18F: half-life in s, dose in Bq, weight in kg.
HALF_LIFE, DOSE, WEIGHT = 6586.2, 3.7e8, 70.0
SUV = Images(size=(8, 8), units="SUVBW")


def suv(minutes: float, weight: float = WEIGHT) -> float:
    """Return the factor after so many minutes of decay, by hand."""
    return weight * 1000 / (DOSE * math.exp(-math.log(2) * minutes * 60 / HALF_LIFE))


def pet(
    number: int = 0, *, patient: str = "P1", acquired: float = 60, **more: object
) -> FileDataset:
    """Return a slice in Bq/ml, injected an hour before the scan, acquired so many s after it."""
    one = placed(image(noise(8, 8, seed=number), patient, "S", "1", number), (0, 0, 2.0 * number))
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = PET
    one.Modality, one.Units, one.DecayCorrection = "PT", "BQML", "START"
    one.CorrectedImage, one.PatientWeight = ["DECY", "ATTN", "SCAT"], WEIGHT
    one.RescaleSlope, one.RescaleIntercept = 2.5, 0
    at = SCAN + timedelta(seconds=acquired)
    one.SeriesDate, one.SeriesTime = SCAN.strftime("%Y%m%d"), SCAN.strftime("%H%M%S")
    one.AcquisitionDate, one.AcquisitionTime = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = DOSE, HALF_LIFE
    tracer.RadiopharmaceuticalStartTime = "234000"  # the day before
    one.RadiopharmaceuticalInformationSequence = [tracer]
    for name, value in more.items():
        target = tracer if name in _OF_TRACER else one
        if value is None:
            delattr(target, name)
        else:
            setattr(target, name, value)
    return one


_OF_TRACER = {
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
}


def headers(folder: Path, *datasets: FileDataset) -> list[Header]:
    found = []
    for number, one in enumerate(datasets):
        path = save(folder / f"{number}.dcm", one)
        status = path.stat()
        row = read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
        assert isinstance(row, Instance)
        found.append(row.header)
    return found


def factor(folder: Path, *datasets: FileDataset) -> float:
    read = headers(folder, *datasets)
    for header in read:
        check_kind(header, SUV)
    return suv_factor(read)


def test_suv_is_the_dose_left_at_the_start_of_the_scan_also_across_midnight(tmp_path: Path) -> None:
    assert factor(tmp_path, pet()) == pytest.approx(suv(60), rel=1e-6)


@pytest.mark.parametrize(
    ("more", "minutes"),
    [
        ({"DecayCorrection": "ADMIN"}, 0),
        ({"DecayCorrection": "ADMIN", "RadiopharmaceuticalStartTime": None}, 0),
        ({"RadiopharmaceuticalStartTime": "001000.5"}, 30 - 0.5 / 60),
        ({"RadiopharmaceuticalStartTime": "0010"}, 30),
        ({"RadiopharmaceuticalStartDateTime": "20200229231000.0"}, 90),
        # The wall clock of the header's zone: 22:10 in +0000 is 23:10 in +0100.
        (
            {
                "RadiopharmaceuticalStartDateTime": "20200229221000+0000",
                "TimezoneOffsetFromUTC": "+0100",
            },
            90,
        ),
        # A series made anew later: acquired a minute after the start; half of the counts of a
        # short frame lie in its middle, 30 s later.
        ({"SeriesTime": "090000", "FrameReferenceTime": 90000, "ActualFrameDuration": 60000}, 60),
        ({"SeriesTime": "090000"}, 61),
    ],
)
def test_times_of_series_acquisition_and_injection(
    tmp_path: Path, more: dict[str, object], minutes: float
) -> None:
    assert factor(tmp_path, pet(**more)) == pytest.approx(suv(minutes), rel=1e-4)


def test_a_series_made_anew_started_when_ge_says(tmp_path: Path) -> None:
    one = pet(SeriesTime="090000")
    block = one.private_block(0x0009, "GEMS_PETD_01", create=True)
    block.add_new(0x0D, "DT", "20200301001000.00")
    assert factor(tmp_path, one) == pytest.approx(suv(30), rel=1e-6)


def test_the_whole_series_is_corrected_to_its_first_image(tmp_path: Path) -> None:
    late = pet(1, acquired=600, SeriesTime="004500")
    early = pet(0, acquired=60, SeriesTime="004500")
    assert factor(tmp_path, late, early) == pytest.approx(suv(61), rel=1e-6)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"PatientWeight": None}, "lacks PatientWeight"),
        ({"PatientWeight": 0, "RadionuclideTotalDose": None}, "PatientWeight, RadionuclideTotal"),
        ({"RadionuclideHalfLife": None}, "lacks RadionuclideHalfLife"),
        ({"RadiopharmaceuticalStartTime": None}, "lacks RadiopharmaceuticalStartDateTime or"),
        ({"AcquisitionTime": None}, "lacks AcquisitionDate and AcquisitionTime"),
        ({"SeriesDate": None}, "lacks SeriesDate and SeriesTime"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"DecayCorrection": None}, "lacks DecayCorrection"),
        ({"CorrectedImage": ["DECY"]}, "CorrectedImage lacks ATTN"),
        ({"CorrectedImage": None}, "lacks CorrectedImage"),
        ({"RadionuclideTotalDose": 370}, "RadionuclideTotalDose is 370 Bq"),  # in MBq
        ({"PatientWeight": 70000}, "PatientWeight is 70000 kg"),  # in g
        ({"RadiopharmaceuticalStartDateTime": "20200301010000"}, "1200 s after the start"),
        ({"RadiopharmaceuticalStartDateTime": "20200201000000"}, "half-lives after the injection"),
        ({"RadionuclideHalfLife": 282240}, "may have been injected on another day"),
        ({"RadiopharmaceuticalInformationSequence": None}, "lacks RadionuclideTotalDose"),
    ],
)
def test_what_a_header_lacks_is_named(tmp_path: Path, more: dict[str, object], named: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        factor(tmp_path, pet(**more))
    assert caught.value.reason is Reason.NO_SUV
    assert named in caught.value.detail


def test_images_of_one_series_must_agree(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="NO_SUV") as caught:
        factor(tmp_path, pet(0), pet(1, PatientWeight=80))
    assert caught.value.detail == "PatientWeight differs within the series"
    two = pet()
    two.RadiopharmaceuticalInformationSequence.append(Dataset())
    with pytest.raises(UnusableFile) as caught:
        factor(tmp_path, two)
    assert "2 radiopharmaceuticals" in caught.value.detail


@pytest.mark.parametrize("dimensions", [(8, 8), (8, 8, 8)])
def test_a_run_in_suv_takes_becquerel_and_suv_alike(
    tmp_path: Path, dimensions: tuple[int, ...]
) -> None:
    site, patients = tmp_path / "s", ("BQ", "GML", "LBM", "COUNTS", "BARE")
    for patient in patients:
        for number in range(4):
            one = pet(number, patient=patient)
            if patient in {"GML", "LBM"}:  # the same image, as a workstation stores it
                one.Units, one.RescaleSlope = "GML", f"{2.5 * suv(60):.10g}"
                one.SUVType = "LBM" if patient == "LBM" else "BW"
                del one.PatientWeight
            if patient == "COUNTS":
                one.Units = "CNTS"
            if patient == "BARE":
                del one.RadiopharmaceuticalInformationSequence
            save(site / patient / f"{number}.dcm", one)
    write_labels(site, [{"PatientID": p, "ill": n % 2} for n, p in enumerate(patients)])
    size = list(dimensions)
    top = 2.5 * 4000 * suv(60)
    run = config_of(
        cohort=f"{{images: {{size: {size}, units: SUVBW, intensity: window, window: [0, {top}]}}}}"
    )
    found = load(site, run, tmp_path / "cache")
    assert found.items.pseudonyms == ("BQ", "GML")
    items = found.items.image
    half = len(items) // 2
    assert float(items.max()) > 0.9  # so the window is that of SUV
    assert float((items[:half] - items[half:]).abs().max()) < 1e-5
    told = {p.reason for p in found.unusable}
    assert told >= {Reason.WRONG_UNITS, Reason.NO_SUV}


def test_the_index_keeps_what_suv_needs(tmp_path: Path) -> None:
    path = save(tmp_path / "s" / "a.dcm", pet())
    with Index(tmp_path / "index.sqlite") as index:
        index.update(tmp_path / "s")
        (kept,) = index.instances()
    status = path.stat()
    assert kept == read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
    assert kept.tracer is not None
    assert np.isclose(suv_factor([kept.header]), suv(60))
