"""Padding is no tissue: whatever a scanner fills an image up with, air and tissue stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from torch import Tensor

from client.cohort.pixel_quality import look_at_pixels
from client.dicom.index.index import Index
from client.dicom.pixels.native import parse_image, read_easy, read_image
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.files import File
from client.dicom.reading.rescale import Pixels
from client.inference.study_reading import SiteRows, read_study
from client.site.cache import Cache
from common.config.run_config import Images
from common.data.preprocessing import prepare
from tests.client.dicom_files import config_of, image, load, save, slices, write_labels
from tests.client.structure_sets import item

SIDE = 48
ROWS, COLUMNS = np.indices((SIDE, SIDE))
OUTSIDE = (ROWS - 24) ** 2 + (COLUMNS - 24) ** 2 > 23**2  # of the round field of view
BODY = (ROWS - 24) ** 2 + (COLUMNS - 24) ** 2 < 12**2
TISSUE = np.random.default_rng(0).integers(-20, 70, (SIDE, SIDE))
#: Hounsfield units, with air where there is no body.
SCENE = np.where(BODY, TISSUE, -1000).astype(np.int64)
INTENSITIES = ("percentile", "zscore", "window")


def stored(
    padding: int | None, *, intercept: int = 0, signed: bool = True, bits: int = 16
) -> FileDataset:
    """Return the scene, or the scene with padding outside, as a scanner stores it."""
    values = SCENE - intercept
    if padding is not None:
        values = np.where(OUTSIDE, padding, values)
    dataset = image(values.astype(np.int16 if signed else np.uint16))
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "CT", 1, intercept
    return dataset


def declared(
    dataset: FileDataset, value: int, limit: int | None = None, vr: str = "SS"
) -> FileDataset:
    dataset.add_new("PixelPaddingValue", vr, value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", vr, limit)
    return dataset


def file_of(path: Path) -> File:
    return File(path=path, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)


def pixels_of(path: Path) -> Pixels:
    """Return an image's pixels, after both ways of reading said the same."""
    (_, fast), (_, slow) = read_image(file_of(path)), parse_image(file_of(path))
    assert np.array_equal(fast.values(0), slow.values(0))
    one, other = (pixels.padded((slice(0, 1),)) for pixels in (fast, slow))
    assert (one is None) == (other is None)
    assert one is None or (other is not None and np.array_equal(one, other))
    return slow


def prepared(path: Path, intensity: str) -> Tensor:
    pixels = pixels_of(path)
    padded = pixels.padded((slice(0, 1),))
    window = {"window": [-1000, 1000]} if intensity == "window" else {}
    rules = Images.model_validate({"size": (SIDE, SIDE), "intensity": intensity, **window})
    return prepare(pixels.values(0), None, rules, None if padded is None else padded[0])


def implicit(dataset: FileDataset) -> FileDataset:
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")
    return dataset


def turned() -> FileDataset:
    """Return the scene in MONOCHROME1, padded with the highest value, which shows black."""
    values = np.where(OUTSIDE, 4095, 4095 - (SCENE + 1024)).astype(np.uint16)
    dataset = image(values)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME1"
    return declared(dataset, 4095, vr="US")


def compressed() -> FileDataset:
    dataset = declared(stored(4000, intercept=-1024, signed=False, bits=16), 4000, vr="US")
    frame = imagecodecs.jpegls_encode(np.frombuffer(dataset.PixelData, "<u2").reshape(SIDE, SIDE))
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.80")
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


def looked_up() -> FileDataset:
    """Return the scene through a Modality LUT that gives padding the value of tissue."""
    dataset = image(np.where(OUTSIDE, 7, np.where(BODY, TISSUE + 120, 20)).astype(np.uint16))
    dataset.Modality = "DX"
    table = np.arange(256) + 904
    table[20], table[7] = 24, 1050
    dataset.ModalityLUTSequence = Items(
        [
            item(
                LUTDescriptor=[256, 0, 16],
                ModalityLUTType="US",
                LUTData=table.astype("<u2").tobytes(),
            )
        ]
    )
    dataset.ModalityLUTSequence[0]["LUTDescriptor"].VR = "US"
    dataset.ModalityLUTSequence[0]["LUTData"].VR = "OW"
    return declared(dataset, 7, vr="US")


def beyond_the_bits() -> FileDataset:
    """Return 12 bits padded with 63536, whose lower 12 bits are those of bone."""
    dataset = stored(63536, intercept=-1024, signed=False, bits=12)
    return declared(dataset, 63536, vr="US")


def floats() -> FileDataset:
    dataset = image(np.zeros((SIDE, SIDE), np.uint16))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.where(OUTSIDE, -5000.0, SCENE).astype("<f4").tobytes()
    dataset.FloatPixelPaddingValue = -5000.0
    dataset.BitsStored, dataset.PixelRepresentation = 32, 0
    return dataset


def ranged(first: int, last: int) -> FileDataset:
    """Return the scene whose padding takes several values."""
    dataset = stored(-2000)
    values = np.frombuffer(dataset.PixelData, "<i2").reshape(SIDE, SIDE).copy()
    values[OUTSIDE] = -3000 + np.arange(OUTSIDE.sum()) % 1001
    dataset.PixelData = values.tobytes()
    return declared(dataset, first, last)


KINDS: dict[str, Callable[[], FileDataset]] = {
    "-2000": lambda: declared(stored(-2000), -2000),
    "-32768": lambda: declared(stored(-32768), -32768),
    "written as unsigned": lambda: declared(stored(-2000), 63536, vr="US"),
    "implicit": lambda: implicit(declared(stored(-2000), -2000)),
    "implicit, unsigned": lambda: implicit(
        declared(stored(4000, intercept=-1024, signed=False), 4000, vr="US")
    ),
    "below the intercept": lambda: declared(stored(-32768, intercept=-1024), -32768),
    "unsigned, 0": lambda: declared(stored(0, intercept=-1024, signed=False), 0, vr="US"),
    "unsigned, high": lambda: declared(
        stored(63536, intercept=-1024, signed=False), 63536, vr="US"
    ),
    "unsigned, said to be signed": lambda: declared(
        stored(63536, intercept=-1024, signed=False), -2000
    ),
    "a range": lambda: ranged(-3000, -2000),
    "a range the other way": lambda: ranged(-2000, -3000),
    "compressed": compressed,
    "beyond the stored bits": beyond_the_bits,
    "floats": floats,
}


@pytest.mark.parametrize("intensity", INTENSITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_air_and_tissue_are_the_same_whatever_the_padding(
    tmp_path: Path, kind: str, intensity: str
) -> None:
    plain = prepared(save(tmp_path / "plain.dcm", stored(None)), intensity)
    padded = prepared(save(tmp_path / "padded.dcm", KINDS[kind]()), intensity)
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [turned, looked_up])
@pytest.mark.parametrize("intensity", ["percentile", "zscore"])
def test_padding_is_at_the_lowest_where_values_are_turned_or_looked_up(
    tmp_path: Path, make: Callable[[], FileDataset], intensity: str
) -> None:
    plain = prepared(save(tmp_path / "plain.dcm", stored(None)), intensity)
    padded = prepared(save(tmp_path / "padded.dcm", make()), intensity)
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


def test_the_easy_way_reads_padding_of_either_sign(tmp_path: Path) -> None:
    for number, dataset in enumerate(
        (declared(stored(-2000), -2000), declared(stored(-2000), 63536, vr="US"))
    ):
        _, pixels = read_easy(file_of(save(tmp_path / f"{number}.dcm", dataset)))
        assert pixels.padding
        assert pixels.values(0).min() == -1000


@pytest.mark.parametrize("part", [0.1, 0.6])
def test_padding_is_no_part_of_statistics_where_nothing_else_is_background(part: float) -> None:
    values = np.random.default_rng(1).normal(40, 12, (50, 50)).astype(np.float32)
    padding = np.zeros(values.shape, np.bool_)
    padding[: int(50 * part)] = True
    filled = np.where(padding, values[~padding].min(), values)
    real = values[~padding]
    found = prepare(filled, None, Images(size=(50, 50), intensity="zscore"), padding)[0].numpy()
    np.testing.assert_allclose(found[~padding], (real - real.mean()) / real.std(ddof=1), atol=1e-4)
    low, high = np.percentile(real, [1, 99])
    found = prepare(filled, None, Images(size=(50, 50)), padding)[0].numpy()
    np.testing.assert_allclose(found[~padding], ((real - low) / (high - low)).clip(0, 1), atol=1e-4)
    assert (found[padding] == 0).all()


def test_background_that_nobody_declares_is_part_of_the_image() -> None:
    """Only what is declared is padding (PS3.3 C.7.5.1.1.2): a value alone does not say so."""
    values = np.random.default_rng(1).normal(400, 30, (50, 50)).astype(np.float32)
    values[:, :20] = 0
    background = values == 0
    rules = Images(size=(50, 50), intensity="zscore")
    plain = prepare(values, None, rules)[0].numpy()
    np.testing.assert_allclose(plain, (values - values.mean()) / values.std(ddof=1), atol=1e-4)
    declared = prepare(values, None, rules, background)[0].numpy()
    assert np.abs(declared - plain)[~background].max() > 1
    # Beside air, declared padding is more of it, and both come out alike.
    values[:, 20:30] = np.random.default_rng(2).uniform(0, 5, (50, 10))
    assert np.array_equal(prepare(values, None, rules, background), prepare(values, None, rules))


def test_noise_in_the_air_makes_little_difference() -> None:
    noise = np.random.default_rng(2).normal(0, 15, SCENE.shape)
    plain = (SCENE + noise).astype(np.float32)
    filled = np.where(OUTSIDE, plain[~OUTSIDE].min(), plain).astype(np.float32)
    for intensity in ("percentile", "zscore"):
        rules = Images.model_validate({"size": (SIDE, SIDE), "intensity": intensity})
        apart = prepare(filled, None, rules, OUTSIDE)[0] - prepare(plain, None, rules)[0]
        assert apart[torch.from_numpy(~OUTSIDE)].abs().max() < 0.06


def test_slices_of_a_volume_may_be_padded_each_in_its_own_way(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for patient, paddings in (("P1", (None,) * 8), ("P2", (None, -2000, -32768, -2000) * 2)):
        series = slices(np.stack([SCENE.astype(np.int16)] * 8), patient)
        for dataset, padding in zip(series, paddings, strict=True):
            if padding is not None:
                values = np.where(OUTSIDE, padding, SCENE).astype(np.int16)
                dataset.PixelData = values.tobytes()
                declared(dataset, padding)
            save(site / f"{dataset.SOPInstanceUID}.dcm", dataset)
    write_labels(site, [{"PatientID": "P1", "ill": 0}, {"PatientID": "P2", "ill": 1}])
    config = config_of(
        cohort="{images: {size: [8, 48, 48], intensity: zscore, fit: crop}, smallest_cohort: 1}"
    )
    for _ in range(2):  # decoded, and from the store
        cohort = load(site, config, tmp_path / "cache")
        torch.testing.assert_close(cohort.items.image[1], cohort.items.image[0])


def test_cohort_and_prediction_leave_padding_out_of_their_statistics(tmp_path: Path) -> None:
    """The body fills the rest of the image, so nothing but padding is dark."""
    site = tmp_path / "site"
    values = np.where(OUTSIDE, -2000, TISSUE).astype(np.int16)
    path = save(site / "a.dcm", declared(image(values), -2000))
    write_labels(site, [{"PatientID": "P1", "ill": 0}])
    config = config_of(cohort="{images: {size: [48, 48], intensity: zscore}, smallest_cohort: 1}")
    real = TISSUE[~OUTSIDE]
    expected = (real - real.mean()) / real.std(ddof=1)
    study = read_study([path], config, SiteRows(labels=None, withdrawn=frozenset()))
    for found in (load(site, config, tmp_path / "cache").items.image[0], study.items[0].image):
        np.testing.assert_allclose(found[0].numpy()[~OUTSIDE], expected, atol=1e-4)
        np.testing.assert_allclose(found[0].numpy()[OUTSIDE], expected.min(), atol=1e-4)


def test_frames_of_an_enhanced_object_share_its_padding(tmp_path: Path) -> None:
    values = np.stack([SCENE, np.where(OUTSIDE, -2000, SCENE)]).astype(np.int16)
    dataset = declared(image(values), -2000)
    groups = Dataset()
    groups.PixelValueTransformationSequence = [
        item(RescaleSlope=2, RescaleIntercept=-24, RescaleType="HU")
    ]
    dataset.SharedFunctionalGroupsSequence = [groups]
    dataset.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset()]
    _, pixels = read_image(file_of(save(tmp_path / "m.dcm", dataset)))
    assert np.array_equal(pixels.values(1), pixels.values(0))
    assert pixels.values(0).min() == -2024


def test_an_image_that_is_all_padding_is_blank(tmp_path: Path) -> None:
    site = tmp_path / "site"
    save(site / "a.dcm", declared(ranged(-32768, 32767), -32768, 32767))
    write_labels(site, [{"PatientID": "P1", "ill": 0}])
    with pytest.raises(Exception, match="BLANK"):
        load(site, config_of(), tmp_path / "cache")


def test_what_declares_no_padding_keeps_its_values(tmp_path: Path) -> None:
    dataset = stored(-2000)
    dataset.PixelPaddingRangeLimit = -3000  # of no value
    dataset["PixelPaddingRangeLimit"].VR = "SS"
    pixels = pixels_of(save(tmp_path / "a.dcm", dataset))
    assert pixels.padded((slice(0, 1),)) is None
    assert pixels.values(0).min() == -2000


def test_padding_at_the_top_does_not_make_an_image_saturated(tmp_path: Path) -> None:
    values: NDArray[np.uint16] = np.where(ROWS < 30, 4095, 100 + COLUMNS).astype(np.uint16)
    for declare, expected in ((False, 1), (True, 0)):
        site = tmp_path / str(declare)
        dataset = image(values)
        dataset.BitsStored, dataset.HighBit = 12, 11
        dataset.PhotometricInterpretation = "MONOCHROME1"
        if declare:
            declared(dataset, 4095, vr="US")
        save(site / "a.dcm", dataset)
        write_labels(site, [{"PatientID": "P1", "ill": 0}])
        cache = Cache(site.parent / f"cache {declare}")
        load(site, config_of(cohort="{images: {size: [16, 16]}, smallest_cohort: 1}"), cache.folder)
        with PixelStore(cache.folder / "pixels") as store, Index(cache.index) as index:
            found = look_at_pixels(tuple(index.instances(site)), store)
        assert (found.looked_at, len(found.saturated)) == (1, expected)
