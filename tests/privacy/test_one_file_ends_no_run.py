"""Whatever one patient's files make any step raise, the others of a private run stay as they are.

MUTATED_HEADERS=5000 python -m pytest tests/privacy/test_one_file_ends_no_run.py writes so many
files with absurd headers for each run; the suite writes fewer.
"""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import warnings
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.dataset import FileDataset

from client.cohort import (
    assemble,
    decode,
    image,
    image_masks,
    images,
    prepare,
    select,
    series_choice,
)
from client.cohort.loading import load_cohort
from client.cohort_statistics import brightness
from client.dicom.contained import contained
from client.dicom.headers import header as headers
from client.dicom.reasons import Reason, UnusableFile
from client.labels import label_table
from client.site.cache import Cache
from common.config.run_config import RunConfig, parse_config
from common.data import intensity, preprocessing
from common.platform.errors import CohortError
from common.tasks import task_of
from common.tasks.diagnosis import Diagnosis
from tests.client.dicom_files import save, slices
from tests.privacy import two_worlds
from tests.privacy.two_worlds import check, world, write

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Patch = pytest.MonkeyPatch
HEADERS = int(os.environ.get("MUTATED_HEADERS", "150"))

#: Values that no number in a header has, or that no arithmetic survives.
NUMBERS = (
    *("0", "-0", "1e308", "-1e308", "1e-308", "1e-320", "1e38", "1e19", "-1", "NaN", "inf", "-inf"),
    *("1e400", "", " ", "x", "1\\1", "1e308\\1", "1\\1e308", "1e-308\\1", "1e308\\1e-308", "0\\0"),
    *("1\\0\\0\\0\\1\\0", "0\\0\\0\\0\\0\\0", "1e308\\0\\0\\0\\1e308\\0", "1\\0\\0\\1\\0\\0"),
    *("0\\0\\1e307", "1e308\\-1e308\\1e308", "2147483648", "99999999999999999999", "1,5", "\xb2"),
)
DECIMALS = (
    *("PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "WindowWidth"),
    *("WindowCenter", "EchoTime", "InversionTime", "SliceLocation", "PatientWeight", "TriggerTime"),
    *("NominalScannedPixelSpacing", "DecayFactor", "DoseGridScaling", "PatientSize"),
)
INTEGERS = ("NumberOfFrames", "InstanceNumber", "PixelAspectRatio", "EchoNumbers", "SeriesNumber")
SHORTS = (
    *("Rows", "Columns", "BitsStored", "BitsAllocated", "HighBit", "SamplesPerPixel"),
    *("PixelRepresentation", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)
TEXTS = (
    *("PhotometricInterpretation", "Modality", "PatientAge", "PatientBirthDate", "StudyDate"),
    *("Units", "ImageType", "SpecificCharacterSet", "SOPClassUID", "PatientSex"),
    *("SeriesDescription", "BodyPartExamined", "ImageLaterality", "PresentationIntentType"),
)
WORDS = ("", "\\", "\\\\\\", "\x1b$B", "\xff\xfe", "9" * 70, "PALETTE COLOR", "RGB", "PT", "MR")


def mutate(dataset: FileDataset, chance: random.Random) -> None:
    """Put absurd values into one to three attributes."""
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(chance.choice((DECIMALS, DECIMALS, INTEGERS, SHORTS, TEXTS)))
        if name in SHORTS:
            dataset.add_new(name, "US", chance.choice((0, 1, 2, 8, 16, 32, 4095, 65535)))
        else:
            text = chance.choice(WORDS if name in TEXTS else NUMBERS)
            kind = "LO" if name in TEXTS else ("IS" if name in INTEGERS else "DS")
            dataset.add_new(name, kind, None)
            dataset[name]._value = text


def written(dataset: FileDataset) -> bytes:
    """Return a file's bytes; pydicom warns of most of what stands in it."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def absurd(run: str, chance: random.Random, files: int) -> two_worlds.Patient:
    """Return patients in one, each of some files, all of whose headers are absurd."""
    found = two_worlds.Patient("many")
    while len(found.files) < files:
        one = two_worlds._patient(f"X{len(found.files):05d}", run, chance)
        for name, file in one.files.items():
            assert isinstance(file, FileDataset)
            mutate(file, chance)
            found.files[name] = written(file)
        found.masks |= one.masks
        found.rows += one.rows
    return found


@pytest.mark.parametrize("run", ["1 label", "volumes", "outlines", "demo"])
def test_absurd_headers_change_nobody_elses_items(run: str, tmp_path: Path) -> None:
    chance = random.Random(run)
    others = [two_worlds._patient(f"P{n:02d}", run, chance) for n in range(4)]
    write(tmp_path / "data", others)
    before = world(tmp_path / "data", run, tmp_path / "cache").items()
    write(tmp_path / "data", [*others, absurd(run, chance, HEADERS)])
    after = world(tmp_path / "data", run, tmp_path / "cache").items()
    assert len(before) == 4
    for name, (part, held) in before.items():
        assert after[name][0] == part
        pairs = zip(held, after[name][1], strict=True)
        assert all(two_worlds._same(one, other) for one, other in pairs), name
    everything = [tensor for _, held in after.values() for tensor in held[:2]]
    assert all(bool(tensor.isfinite().all()) for tensor in everything)


# --- each step ---------------------------------------------------------------------------

ERRORS = (
    *(OverflowError, ZeroDivisionError, FloatingPointError, MemoryError, RecursionError),
    *(struct.error, AttributeError, TypeError, IndexError, KeyError, UnicodeDecodeError),
)
#: Where one file, image or row is worked at: module or class, function, run that calls it.
STEPS: dict[str, tuple[object, str, str]] = {
    "a header": (headers, "_described", "1 label"),
    "what a run wants": (select, "check_fits", "1 label"),
    "series of one row": (series_choice, "_judged", "1 label"),
    "pixels": (decode, "read_image", "1 label"),
    "phases": (images, "check_phases", "1 label"),
    "stored values": (images, "pixels_of", "1 label"),
    "grey values": (images, "_checked", "1 label"),
    "a volume": (images, "stack_slices", "volumes"),
    "a network's input": (image, "prepare", "1 label"),
    "a mask": (prepare, "read_mask", "outlines"),
    "a mask's format": (image_masks, "_read", "outlines"),
    "brightness": (brightness, "pixels_of", "1 label"),
    "a row": (label_table, "checked", "1 label"),
    "an outcome": (Diagnosis, "encode", "1 label"),
}
#: Pixels of one patient alone, by which a step that knows no identifier knows them.
MARK = 3999


def _is_marked(values: object) -> bool:
    if isinstance(values, FileDataset | torch.Tensor):
        return False
    if isinstance(values, np.ndarray):
        return bool((values[..., :2, :2] == MARK).all())
    if isinstance(values, list | tuple):
        return any(map(_is_marked, values))
    stored = getattr(values, "stored", None)
    if isinstance(stored, np.ndarray):
        return _is_marked(stored)
    elements = getattr(values, "elements", None)
    if elements is not None:
        return bool(elements.text("PatientID") == "AAA")
    return "AAA" in str(values)


def poison(monkeypatch: Patch, step: str, error: type[Exception]) -> list[str]:
    """Let a step raise an error for one patient's files; return where it is noted each time."""
    owner, name, _ = STEPS[step]
    real, raised = getattr(owner, name), []

    def raising(*given: object, **named: object) -> object:
        if any(map(_is_marked, given)):
            raised.append(step)
            raise made(error)
        return real(*given, **named)

    monkeypatch.setattr(owner, name, raising)
    return raised


def made(error: type[Exception]) -> Exception:
    """Return an error whose text tells a value."""
    if error is UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret")
    return error("secret")


def one_more(folder: Path, run: str) -> None:
    """Raise unless one patient more, with marked pixels, changes nobody else."""
    chance = random.Random(run)
    others = [two_worlds._patient(f"P{n:02d}", run, chance) for n in range(3)]
    one = two_worlds._patient("AAA", run, chance)
    for file in one.images:
        values = file.pixel_array.copy()
        values[:2, :2] = MARK
        file.PixelData = values.tobytes()
    write(folder / "data", others)
    before = world(folder / "data", run, folder / "cache")
    write(folder / "data", [*others, one])
    check(before, world(folder / "data", run, folder / "cache"), "AAA", 1.0)


@pytest.mark.parametrize("step", STEPS)
def test_an_error_that_no_rule_foresees_is_that_patients_alone(
    monkeypatch: Patch, tmp_path: Path, step: str
) -> None:
    error = ERRORS[list(STEPS).index(step) % len(ERRORS)]
    raised = poison(monkeypatch, step, error)
    one_more(tmp_path, STEPS[step][2])
    assert raised


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_listed_by_its_class_and_tells_no_value(error: type[Exception]) -> None:
    with pytest.raises(UnusableFile) as caught, contained():
        raise made(error)
    problem = caught.value.listed("a file")
    assert problem.reason is (Reason.TOO_LARGE if error is MemoryError else Reason.FAILED)
    assert "secret" not in problem.detail
    assert error is MemoryError or problem.detail == error.__name__


@pytest.mark.parametrize("error", [OSError, sqlite3.OperationalError, CohortError])
def test_a_full_disk_is_no_images_fault(error: type[Exception]) -> None:
    with pytest.raises(error), contained():
        raise error("the disk is full")


@pytest.mark.parametrize(
    "step", ["a network's input", "stored values", "what a run wants", "a row", "an outcome"]
)
def test_without_the_net_one_file_ends_the_run(
    monkeypatch: Patch, tmp_path: Path, step: str
) -> None:
    for module in (select, decode, images, prepare, label_table, assemble):
        monkeypatch.setattr(module, "contained", nullcontext)
    poison(monkeypatch, step, OverflowError)
    with pytest.raises(OverflowError):
        one_more(tmp_path, STEPS[step][2])


# --- grids and grey values ---------------------------------------------------------------


def config_of_images(rules: str) -> RunConfig:
    return parse_config(f"""
name: one
task: {{kind: diagnosis, target: ill}}
cohort: {{images: {{{rules}}}, smallest_cohort: 1}}
model: {{network: small_cnn, width: 4}}
training: {{rounds: 1}}
privacy: {{unit: patient, epsilon: 3.0, default_patients: 10}}
""").in_force()


def refused(folder: Path, rules: str, **header: str) -> dict[str, Reason]:
    """Return who is refused of three patients, of whom the first has an odd header."""
    data, config = folder / "data", config_of_images(rules)
    data.mkdir(parents=True)
    flat = "[16, 16]" in rules
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 99, (1 if flat else 4, 12, 12))
        for place, one in enumerate(slices(values.astype("uint16"), f"P{number}")):
            if flat:
                one.Modality = "CR"
                del one.ImagePositionPatient
            for name, text in header.items() if number == 0 else ():
                one.add_new(name, "DS", None)
                one[name]._value = text.replace("PLACE", str(place))
            save(data / f"{number}-{place}.dcm", one)
    (data / "labels.csv").write_text("PatientID,ill\nP0,1\nP1,0\nP2,1\n")
    cohort = load_cohort(data, config, task_of(config.task), Cache(folder / "cache"))
    assert bool(cohort.items.image.isfinite().all())
    assert {"P1", "P2"} <= set(cohort.items.pseudonyms)
    assert len(cohort.items.pseudonyms) + len(cohort.unusable) == 3
    return {problem.patient: problem.reason for problem in cohort.unusable}


FLAT = "size: [16, 16]"
SOLID = "size: [8, 16, 16], spacing: [1.0, 1.0, 1.0]"


@pytest.mark.parametrize("spacing", ["1e308\\1", "1\\1e308", "1e-308\\1", "1e160\\1e-160"])
def test_pixels_of_no_shape_have_no_geometry(tmp_path: Path, spacing: str) -> None:
    assert refused(tmp_path / "1", FLAT, PixelSpacing=spacing) == {"P0": Reason.NO_GEOMETRY}
    cropped = refused(tmp_path / "2", f"{FLAT}, fit: crop", PixelSpacing=spacing)
    assert cropped == {"P0": Reason.TOO_LARGE}


def test_a_shape_that_is_not_looked_at_refuses_nobody(tmp_path: Path) -> None:
    assert refused(tmp_path, f"{FLAT}, fit: stretch", PixelSpacing="1e308\\1") == {}


@pytest.mark.parametrize(
    "spacing", ["1e308\\1", "1\\1e308", "1e-308\\1", "1e-320\\1e-320", "1e9\\1e9"]
)
def test_distances_of_no_patient_have_no_geometry(tmp_path: Path, spacing: str) -> None:
    assert refused(tmp_path, SOLID, PixelSpacing=spacing) == {"P0": Reason.NO_GEOMETRY}


@pytest.mark.parametrize("place", ["0\\0\\PLACEe307", "0\\0\\PLACEe160"])
def test_slices_beyond_any_distance_have_no_geometry(tmp_path: Path, place: str) -> None:
    assert refused(tmp_path, SOLID, ImagePositionPatient=place) == {"P0": Reason.NO_GEOMETRY}


def test_a_grid_beyond_memory_is_too_large(tmp_path: Path) -> None:
    assert refused(tmp_path, SOLID, PixelSpacing="9000\\9000") == {"P0": Reason.TOO_LARGE}


@pytest.mark.parametrize("rule", ["percentile", "zscore", "window, window: [0, 100]"])
@pytest.mark.parametrize(
    ("slope", "intercept"), [("1e35", "0"), ("1e36", "1e38"), ("-1e37", "3e38"), ("6e36", "-3e38")]
)
def test_whatever_a_network_is_given_is_finite(
    tmp_path: Path, rule: str, slope: str, intercept: str
) -> None:
    """Its mean or deviation may be beyond float32 where no value of it is."""
    rules = f"{FLAT}, intensity: {rule}"
    found = refused(tmp_path, rules, RescaleSlope=slope, RescaleIntercept=intercept)
    assert found in ({}, {"P0": Reason.NOT_FINITE})
    assert found or rule != "zscore"


def test_a_look_at_stored_values_alone_lets_what_is_not_finite_through(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    for module in (intensity, preprocessing):
        monkeypatch.setattr(module, "check_finite", lambda *_: None)
    with pytest.raises(AssertionError):
        refused(tmp_path, f"{FLAT}, intensity: zscore", RescaleSlope="1e35", RescaleIntercept="0")
