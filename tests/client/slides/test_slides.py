"""Whole slides become tiles of tissue at one magnification, whatever form they are stored in."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import JPEGBaseline8Bit

from client.dicom.reasons import Reason, UnusableFile
from client.slides import frames as slide_frames
from client.slides.frames import FrameReader, Rgb
from client.slides.levels import level_for, levels_of
from client.slides.stain import stain_of
from client.slides.tiles import SlideFiles, TileReader
from client.slides.tissue import tissue_of
from common.config.run_config import Slide
from tests.client.dicom_files import save, uid
from tests.client.slide_files import (
    GLASS,
    TISSUE,
    compressed,
    frames_of,
    level,
    pyramid,
    slide_of,
    sparse,
    tissue,
    with_pixels,
)

RULES = Slide(mpp=0.5, tile=64)
MATRIX = tissue(200, 300)


def whole(slide: SlideFiles) -> Rgb:
    (found,) = levels_of(slide.paths)
    with FrameReader(found) as reader:
        return reader.region(0, 0, found.rows, found.columns)


def tiles_of(slide: SlideFiles, rules: Slide = RULES) -> list[Rgb]:
    found = list(TileReader(slide, rules).tiles())
    assert not any(isinstance(one, UnusableFile) for one in found)
    return [one for one in found if not isinstance(one, UnusableFile)]


# --- every form that a matrix is stored in ---------------------------------------------------


def in_shuffled_order() -> FileDataset:
    found = level(MATRIX, 0.5)
    places = [(r, c) for r in range(0, 200, 64) for c in range(0, 300, 64)]
    order = np.random.default_rng(0).permutation(len(places))
    frames = frames_of(MATRIX, 64)
    with_pixels(found, [frames[i] for i in order], "native")
    return sparse(found, [places[i] for i in order])


def with_a_second_path() -> FileDataset:
    black = [np.zeros((64, 64, 3), np.uint8)] * len(frames_of(MATRIX, 64))
    return level(MATRIX, 0.5, frames=[*frames_of(MATRIX, 64), *black])


def lossless() -> FileDataset:
    return level(MATRIX, 0.5, syntax="jpeg2000")


FORMS = {
    "full": lambda: level(MATRIX, 0.5),
    "sparse": in_shuffled_order,
    "two optical paths": with_a_second_path,
    "jpeg 2000": lossless,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_level_is_the_same_matrix_however_it_is_stored(tmp_path: Path, form: str) -> None:
    assert np.array_equal(whole(slide_of(tmp_path, FORMS[form]())), MATRIX)


def test_a_concatenation_is_one_level(tmp_path: Path) -> None:
    frames = frames_of(MATRIX, 64)
    parts = []
    for number, (start, end) in enumerate(((0, 7), (7, 15), (15, len(frames)))):
        part = level(MATRIX, 0.5, number=number + 1, frames=frames[start:end])
        part.ConcatenationUID, part.InConcatenationTotalNumber = uid("whole"), 3
        part.InConcatenationNumber = number + 1
        part.ConcatenationFrameOffsetNumber = start
        parts.append(part)
    assert np.array_equal(whole(slide_of(tmp_path / "all", *parts[::-1])), MATRIX)
    with pytest.raises(UnusableFile) as caught:
        levels_of(slide_of(tmp_path / "two", *parts[:2]).paths)
    assert caught.value.reason is Reason.INCOMPLETE_SERIES


@pytest.mark.parametrize("fragments", [1, 3])
def test_jpeg_frames_in_one_fragment_or_several(tmp_path: Path, fragments: int) -> None:
    found = level(MATRIX, 0.5)
    coded = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(f), level=97) for f in frames_of(MATRIX, 64)
    ]
    found.PhotometricInterpretation = "YBR_FULL"  # what OpenSlide refuses
    compressed(found, coded, JPEGBaseline8Bit, fragments)
    difference = np.abs(whole(slide_of(tmp_path, found)).astype(int) - MATRIX)
    assert difference.mean() < 3


def test_what_no_frame_covers_and_what_lies_beyond_the_edge_is_white(tmp_path: Path) -> None:
    found = sparse(level(MATRIX, 0.5, frames=frames_of(MATRIX, 64)[:1]), [(0, 0)])
    (one,) = levels_of(slide_of(tmp_path, found).paths)
    with FrameReader(one) as reader:
        region = reader.region(-10, 50, 100, 30)
    assert np.array_equal(region[10:74, :14], MATRIX[:64, 50:64])
    assert (region[:10] == 255).all()
    assert (region[:, 14:] == 255).all()


# --- one magnification -----------------------------------------------------------------------


def test_the_coarsest_level_that_is_fine_enough_is_taken(tmp_path: Path) -> None:
    sizes = (0.25, 0.5, 0.52, 2.0, None)
    small = MATRIX[:128, :128]
    files = [level(small, one, number=n + 1) for n, one in enumerate(sizes)]
    levels = levels_of(slide_of(tmp_path, *files).paths)
    for wanted, expected in ((0.5, 0.52), (0.3, 0.25), (1.9, 0.52), (2.0, 2.0), (8.0, 2.0)):
        assert level_for(levels, wanted).microns == pytest.approx(expected)
    with pytest.raises(UnusableFile) as caught:
        level_for(levels, 0.1)
    assert caught.value.reason is Reason.NO_MAGNIFICATION
    with pytest.raises(UnusableFile):
        level_for([one for one in levels if one.microns is None], 0.5)


@pytest.mark.parametrize("scanned", [0.25, 0.33, 0.5, 0.515])
def test_tiles_show_tissue_at_one_size_however_it_was_scanned(
    tmp_path: Path, scanned: float
) -> None:
    """Stripes of 16 microns have 16 pixels at 1 micron a pixel, within 5 %."""
    side = round(400 / scanned)
    stripe = (np.arange(side) * scanned // 8).astype(int) % 2 == 0
    matrix = np.full((side, side, 3), TISSUE, np.uint8)
    matrix[:, stripe] //= 2
    rules = Slide(mpp=1.0, tile=128)
    for tile in tiles_of(slide_of(tmp_path, level(matrix, scanned, tile=96)), rules):
        assert tile.shape == (128, 128, 3)
        spectrum = np.abs(np.fft.rfft(tile[64, :, 0].astype(float) - tile[64, :, 0].mean(), 1024))
        assert 1024 / spectrum.argmax() == pytest.approx(16, rel=0.05)


def test_tiles_of_the_grid_are_pixels_of_the_level(tmp_path: Path) -> None:
    found = tiles_of(slide_of(tmp_path, level(MATRIX, 0.5)))
    assert np.array_equal(found[0], MATRIX[:64, :64])
    assert len(found) < 3 * 4, "a quarter of it is glass"
    for tile in found:
        assert (tile != GLASS).any(axis=2).mean() > 0.25


# --- tissue ----------------------------------------------------------------------------------


def test_tissue_is_coloured_and_no_pen(tmp_path: Path) -> None:
    del tmp_path
    picture = np.full((100, 100, 3), GLASS, np.uint8)
    picture[10:60, 10:60] = TISSUE
    picture[30:34, 30:34] = GLASS  # a vessel
    for place, pen in ((70, (30, 160, 60)), (78, (40, 90, 200)), (86, (20, 20, 22))):
        picture[place : place + 6, 5:95] = pen
    found = tissue_of(picture, 8.0)
    assert found[10:60, 10:60].all()
    assert found.sum() == 2500


def test_most_tiles_are_drawn_by_the_patient_and_stay_the_same(tmp_path: Path) -> None:
    few = Slide(mpp=0.5, tile=32, most_tiles=5)
    slide = slide_of(tmp_path / "a", level(MATRIX, 0.5))
    places = [TileReader(slide, few).places for _ in range(2)]
    assert len(places[0]) == 5
    assert np.array_equal(*places)
    other = slide_of(tmp_path / "b", level(MATRIX, 0.5, patient="P2"))
    assert not np.array_equal(TileReader(other, few).places, places[0])
    everything = TileReader(slide, few.model_copy(update={"most_tiles": 2000})).places
    assert {tuple(p) for p in places[0]} <= {tuple(p) for p in everything}


def test_a_slide_of_one_tile_or_less_is_one_tile(tmp_path: Path) -> None:
    for side in (64, 50):
        matrix = np.full((side, side, 3), TISSUE, np.uint8)
        (tile,) = tiles_of(slide_of(tmp_path / str(side), level(matrix, 0.5)))
        assert (tile[:side, :side] == TISSUE).all()
        assert (tile[side:] == 255).all()


def test_a_slide_without_tissue_or_magnification_is_left_out(tmp_path: Path) -> None:
    glass = level(np.full((128, 128, 3), GLASS, np.uint8), 0.5)
    unsaid = level(MATRIX, None)
    for name, one, reason in (
        ("glass", glass, Reason.NO_TISSUE),
        ("unsaid", unsaid, Reason.NO_MAGNIFICATION),
    ):
        with pytest.raises(UnusableFile) as caught:
            TileReader(slide_of(tmp_path / name, one), RULES)
        assert caught.value.reason is reason


def test_one_broken_tile_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    found = level(tissue(256, 256), 0.5, syntax="jpeg")
    coded = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(f)) for f in frames_of(tissue(256, 256), 64)
    ]
    coded[1] = coded[1][: len(coded[1]) // 2]
    compressed(found, coded, JPEGBaseline8Bit)
    small = level(tissue(256, 256)[::8, ::8], 4.0, number=2)
    tiles = list(TileReader(slide_of(tmp_path, found, small), RULES).tiles())
    broken = [one for one in tiles if isinstance(one, UnusableFile)]
    assert [one.reason for one in broken] == [Reason.TRUNCATED_PIXELS]
    assert len(tiles) > 8


def test_a_file_that_ends_early_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "0.dcm", level(MATRIX, 0.5, syntax="jpeg"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnusableFile) as caught, FrameReader(levels_of([path])[0]):
        pass
    assert caught.value.reason is Reason.TRUNCATED_PIXELS


def test_no_pixel_of_a_label_is_ever_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *levels, label = pyramid()
    seen: list[Rgb] = []
    real = slide_frames._colours

    def counted(stored: bytes, one: slide_frames.SlideLevel) -> Rgb:
        seen.append(real(stored, one))
        return seen[-1]

    monkeypatch.setattr(slide_frames, "_colours", counted)
    slide = slide_of(tmp_path, *levels)
    assert len(tiles_of(slide)) > 30
    assert len(seen) >= 30 + 4, "the reader counts"
    path = save(tmp_path / "label.dcm", label)
    with pytest.raises(UnusableFile) as caught:
        levels_of([*slide.paths, path])
    assert caught.value.reason is Reason.SLIDE_LABEL
    assert not any((picture == 7).all() for picture in seen)


# --- stain -----------------------------------------------------------------------------------


def test_unlike_stains_become_alike_by_each_slide_alone() -> None:
    generator = np.random.default_rng(0)
    amounts = generator.gamma(2.0, 0.3, (2, 64 * 64)) * (generator.random((2, 64 * 64)) < 0.7)
    found = []
    for own in (
        np.array([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]]),
        np.array([[0.49, 0.27], [0.77, 0.80], [0.41, 0.53]]),
    ):
        density = own @ amounts
        picture = np.rint(240 * np.exp(-density)).T.reshape(64, 64, 3)
        tile = np.clip(picture, 0, 255).astype(np.uint8)
        stain = stain_of([tile])
        assert stain is not None
        found.append((tile, stain.applied(tile)))
    before = np.abs(found[0][0].astype(int) - found[1][0]).mean()
    after = np.abs(found[0][1].astype(int) - found[1][1]).mean()
    assert after < 0.4 * before
    assert stain_of([np.full((64, 64, 3), GLASS, np.uint8)]) is None
