"""Folders of hospitals as a stranger may bring them: DICOM files and a labels.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from tests.client.dicom_files import image, save, segmentation, slices, write_labels
from tests.end_to_end.pictures import (
    chest,
    clip,
    ct,
    jpeg_422,
    mammogram,
    mr,
    mr_series,
    outlined,
    planar,
    scan,
    skin,
    xray,
)

Row = dict[str, object]


def skin_clinics(data: Path) -> None:
    """Write RGB photographs: by pixel, by plane, and as JPEG with halved colour."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("by pixel", "by plane", "jpeg")):
        rows: list[Row] = []
        for number in range(30):
            patient, ill = f"{name}-{number:03d}", number % 3 == 0
            values = skin(rng, ill=ill)
            dataset = image(values, patient, patient)
            if place:
                dataset = (planar if place == 1 else jpeg_422)(dataset, values)
            dataset.Modality = "XC"
            save(data / name / "dicom" / f"{patient}.dcm", dataset)
            rows.append({"PatientID": patient, "diagnosis": "melanoma" if ill else "naevus"})
        write_labels(data / name, rows)


def ct_centres(data: Path) -> None:
    """Write CT series in three transfer syntaxes; one centre has segmentations lying about."""
    rng = np.random.default_rng(0)
    kinds = "healthy", "calcium", "fat"
    syntaxes = ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
    for name, syntax in zip(("alpha", "beta", "gamma"), syntaxes, strict=True):
        rows: list[Row] = []
        for number in range(24):
            patient, kind = f"{name}-{number:03d}", kinds[number % 3]
            series = ct(scan(rng, kind), patient, syntax)
            for place, dataset in enumerate(series):
                save(data / name / patient / f"{(5 * place) % 8}.dcm", dataset)
            if name == "alpha":
                mask = np.zeros((8, 32, 32), np.uint8)
                mask[2:4, 5:9, 5:9] = 1
                save(data / name / patient / "seg.dcm", segmentation({1: mask}, series))
            rows.append({"PatientID": patient, "finding": kind})
        write_labels(data / name, rows)


def chest_departments(data: Path) -> None:
    """Write X-rays with two findings; one department stores bright as low, some cells are empty."""
    rng = np.random.default_rng(0)
    for name in ("east", "west"):
        rows: list[Row] = []
        for number in range(40):
            findings, patient = (number % 2, (number // 2) % 2), f"{name}-{number:03d}"
            for study in range(1 + (number % 3 == 0)):
                key = f"{patient}-{study}"
                values = chest(rng, findings)
                made = xray(values, patient, key, inverted=name == "west")
                save(data / name / f"{key}.dcm", made)
            effusion = findings[1] if number % 7 else ""
            rows.append({"PatientID": patient, "nodule": findings[0], "effusion": effusion})
        write_labels(data / name, rows)


def mr_volumes(data: Path) -> None:
    """Write MR series outlined by another library at one site, by our own writer at the other."""
    rng = np.random.default_rng(0)
    for name in ("mr-one", "mr-two"):
        rows: list[Row] = []
        for number in range(12):
            patient = f"{name}-{number:03d}"
            volume, rim, core = mr(rng)
            series = mr_series(volume, patient)
            for place, dataset in enumerate(series):
                save(data / name / "images" / patient / f"{(place * 5) % 8}.dcm", dataset)
            file = f"seg/{patient}.dcm"
            made = (
                outlined(series, (rim, core))
                if name == "mr-one"
                else segmentation({1: rim, 2: core}, series)
            )
            save(data / name / file, made)
            rows.append({"PatientID": patient, "outline": file})
        write_labels(data / name, rows)


def mr_pictures(data: Path) -> None:
    """Write single MR images: masks as DICOM SEG at one site, as PNG at the other."""
    rng = np.random.default_rng(0)
    for name in ("seg", "png"):
        rows: list[Row] = []
        for number in range(16):
            patient = f"{name}-{number:03d}"
            volume, rim, core = mr(rng)
            picture, mask = volume[4], (rim | core)[4]
            dataset = slices(volume[4:5], patient)[0]
            dataset.Modality = "MR"
            save(data / name / f"{patient}.dcm", dataset)
            file = f"masks/{patient}." + ("dcm" if name == "seg" else "png")
            (data / name / "masks").mkdir(exist_ok=True)
            if name == "seg":
                save(data / name / file, segmentation({1: mask[None]}, [dataset]))
            else:
                Image.fromarray(mask).save(data / name / file)
            assert picture.shape == mask.shape
            rows.append({"PatientID": patient, "mask": file})
        write_labels(data / name, rows)


def survival_centres(data: Path) -> None:
    """Write a clinical table: months, holes, and grades that nobody announced."""
    rng = np.random.default_rng(0)
    for name in ("Klinik Süd", "south", "west"):
        grades = ["low", "very high"] if name == "south" else ["low", "high", "not graded"]
        rows: list[Row] = []
        for number in range(100):
            age, ldh = rng.normal(60, 10), rng.lognormal(5.5, 0.4)
            grade = grades[number % len(grades)]
            risk = 0.9 * (age - 60) / 10 + 1.5 * (grade in {"high", "very high"})
            death, end = rng.exponential(20 * np.exp(-risk)), rng.uniform(6, 60)
            rows.append(
                {
                    "PatientID": f"{number:04d}",
                    "age at diagnosis": _often(rng, f"{age:.1f}", "NA"),
                    "Tumour grade": grade,
                    "ldh": _often(rng, f"{ldh:.0f}", ""),
                    "months": f"{min(death, end):.2f}",
                    "died": int(death <= end),
                }
            )
        write_labels(data / name, rows)


def _often(rng: np.random.Generator, value: str, missing: str) -> str:
    return value if rng.random() > 0.15 else missing


def breast_units(data: Path) -> None:
    """Write signed mammograms and a marker with holes; both tell who has an event in a year."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        rows: list[Row] = []
        for number in range(50):
            patient, seen, marked = f"{name}-{number:03d}", number % 2, rng.random() < 0.4
            made = mammogram(chest(rng, (seen, 0)), patient, patient)
            save(data / name / f"{patient}.dcm", made)
            ill = bool(seen or marked)
            marker = rng.lognormal(4 if marked else 1.5, 0.4)
            months = rng.uniform(1, 11) if ill else rng.uniform(13, 40)
            rows.append(
                {
                    "AccessionNumber": f"A{patient}"[:16],
                    "event": int(ill),
                    "months": f"{months:.1f}",
                    "marker": _often(rng, f"{marker:.1f}", "n/a"),
                    "sex": rng.choice(["f", "m", ""]),
                }
            )
        write_labels(data / name, rows)


def clips(data: Path) -> None:
    """Write ultrasound clips of three frames."""
    rng = np.random.default_rng(0)
    for name in ("us-a", "us-b"):
        rows: list[Row] = []
        for number in range(24):
            patient, ill = f"{name}-{number:03d}", number % 2
            save(data / name / f"{patient}.dcm", clip(rng, patient, ill=bool(ill)))
            rows.append({"PatientID": patient, "ill": ill})
        write_labels(data / name, rows)


def images_only(
    site: Path, patients: int, ill: Callable[[int], int] = lambda n: n % 2
) -> list[Row]:
    """Write X-rays of patients 001, 002, ... and return their rows, unwritten."""
    rng = np.random.default_rng(patients)
    rows: list[Row] = []
    for number in range(patients):
        patient = f"{number:03d}"
        made = xray(chest(rng, (ill(number), 0)), patient, f"{site.name}{number}", inverted=False)
        save(site / f"{patient}.dcm", made)
        rows.append({"PatientID": patient, "ill": ill(number)})
    return rows


def hospital(site: Path, patients: int = 20, ill: Callable[[int], int] = lambda n: n % 2) -> Path:
    """Write X-rays and their labels."""
    write_labels(site, images_only(site, patients, ill))
    return site
