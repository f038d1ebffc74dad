"""One outline as every kind of PNG: the same label map, or a refusal; never another outline."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset

from client.dicom.masks import png_values
from client.dicom.masks.png import read_png
from client.dicom.masks.seg_segments import Structures
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import config_of, image, load, noise, save, write_labels

SHAPE = (48, 48)
ROWS, COLUMNS = np.indices(SHAPE)
DRAWN = (ROWS - 22) ** 2 + (COLUMNS - 25) ** 2 < 140
GREY = np.where(DRAWN, 255, 0).astype(np.uint8)
WHITE = np.full(SHAPE, 255, np.uint8)
BLACK = np.zeros(SHAPE, np.uint8)
Pixels = NDArray[np.generic]
wanted = pytest.mark.parametrize("structures", [{"one": (255,)}, {"one": (0,)}, {"one": (1,)}])


def stack(*channels: Pixels) -> Image.Image:
    return Image.fromarray(np.stack(channels, axis=-1))


def palette(index: Pixels, *colours: tuple[int, int, int]) -> Image.Image:
    found = Image.fromarray(index.astype(np.uint8)).convert("P")
    found.putdata(index.reshape(-1).tolist())
    found.putpalette([part for colour in colours for part in colour])
    return found


def chunks(path: Path, *parts: tuple[bytes, bytes]) -> Path:
    """Write a PNG of these chunks; Pillow writes neither interlaced ones nor RGBA of 16 bits."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*parts, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


def raw(path: Path, samples: Pixels, colour: int, *more: tuple[bytes, bytes]) -> Path:
    """Write (rows, columns[, samples]) of 8 or 16 bits with more chunks before the pixels."""
    bits = samples.dtype.itemsize * 8
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, 0)
    lines = [b"\0" + line.astype(f">u{bits // 8}").tobytes() for line in samples]
    return chunks(path, (b"IHDR", head), *more, (b"IDAT", zlib.compress(b"".join(lines))))


def interlaced(path: Path) -> Path:
    """Write the outline in Adam7 order (PNG 8.2)."""
    head = struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], 8, 0, 0, 0, 1)
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    lines = b"".join(
        b"\0" + line.tobytes()
        for row, column, down, right in passes
        for line in GREY[row::down, column::right]
    )
    return chunks(path, (b"IHDR", head), (b"IDAT", zlib.compress(lines)))


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def saved(picture: Image.Image, **how: object) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        picture.save(path, **how)
        return path

    return write


SAME = {
    "grey": saved(Image.fromarray(GREY)),
    "one bit": saved(Image.fromarray(GREY).convert("1")),
    "16 bits": saved(Image.fromarray(GREY.astype(np.uint16) * 257)),
    "interlaced": interlaced,
    "RGB": saved(stack(GREY, GREY, GREY)),
    "palette, index 0 white": saved(palette(~DRAWN, (255, 255, 255), (0, 0, 0))),
    "palette, index 0 black": saved(palette(DRAWN, (0, 0, 0), (255, 255, 255))),
    "palette of colours, index 0 black": saved(palette(DRAWN, (0, 0, 0), (200, 0, 0))),
    "LA, in alpha": saved(stack(WHITE, GREY)),
    "LA, in both": saved(stack(GREY, GREY)),
    "RGBA, white, in alpha": saved(stack(WHITE, WHITE, WHITE, GREY)),
    "RGBA, black, in alpha": saved(stack(BLACK, BLACK, BLACK, GREY)),
    "RGBA, red, in alpha": saved(stack(WHITE, BLACK, BLACK, GREY)),
    "RGBA, opaque": saved(stack(GREY, GREY, GREY, WHITE)),
    "RGBA, all transparent": saved(stack(GREY, GREY, GREY, BLACK)),
    "RGBA of 16 bits": lambda path: raw(
        path, np.stack([GREY, GREY, GREY, WHITE], axis=-1).astype(np.uint16) * 257, 6
    ),
    "tRNS, white transparent": saved(Image.fromarray(GREY), transparency=255),
    "tRNS, black transparent": saved(Image.fromarray(GREY), transparency=0),
    "tRNS, a value of no pixel": saved(Image.fromarray(GREY), transparency=77),
    "tRNS, RGB, black transparent": saved(stack(GREY, GREY, GREY), transparency=(0, 0, 0)),
    "tRNS, one bit, black transparent": saved(Image.fromarray(GREY).convert("1"), transparency=0),
    "tRNS, 16 bits, black transparent": saved(
        Image.fromarray(GREY.astype(np.uint16) * 257), transparency=0
    ),
    "tRNS, its upper byte does not count": lambda path: raw(path, GREY, 0, (b"tRNS", b"\xff\0")),
    "EXIF, upright": saved(Image.fromarray(GREY), exif=exif(1)),
    "gamma": lambda path: raw(path, GREY, 0, (b"gAMA", struct.pack(">I", 45455))),
}


@pytest.mark.parametrize("kind", SAME)
@wanted
def test_an_outline_is_the_same_in_every_kind_of_png(
    tmp_path: Path, kind: str, structures: Structures
) -> None:
    path = SAME[kind](tmp_path / "m.png")
    if kind.startswith("palette of colours") and structures == {"one": (255,)}:
        with pytest.raises(UnusableFile):  # it numbers its labels
            read_png(path, SHAPE, structures)
        return
    assert np.array_equal(read_png(path, SHAPE, structures) > 0, DRAWN)


def smooth() -> Image.Image:
    return Image.fromarray(GREY).filter(ImageFilter.GaussianBlur(1.5))


def once_jpeg(quality: int) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def enlarged() -> Image.Image:
    return Image.fromarray(GREY[::2, ::2]).resize(SHAPE, Image.Resampling.BILINEAR)


UNLIKE = {
    "smoothed": saved(smooth()),
    "a JPEG before": saved(once_jpeg(75)),
    "a fine JPEG before": saved(once_jpeg(90)),
    "a JPEG still": saved(once_jpeg(75), format="JPEG"),
    "enlarged": saved(enlarged()),
    "smooth alpha": saved(stack(WHITE, np.asarray(smooth()))),
    "grey and alpha differ": saved(stack(GREY, np.where(ROWS > 20, 255, 0).astype(np.uint8))),
    "black drawn on what is transparent": saved(stack(255 - GREY, GREY)),
    "soft alpha over grey": saved(stack(GREY, np.where(DRAWN, ROWS + 20, 0).astype(np.uint8))),
    "coloured": saved(stack(GREY, BLACK, BLACK)),
    "palette of colours, index 0 red": saved(palette(~DRAWN, (200, 0, 0), (0, 0, 0))),
    "tRNS, black on transparent white": saved(Image.fromarray(255 - GREY), transparency=255),
    "tRNS, RGB, black on transparent white": saved(
        stack(255 - GREY, 255 - GREY, 255 - GREY), transparency=(255, 255, 255)
    ),
    "tRNS, one bit, black on transparent white": saved(
        Image.fromarray(255 - GREY).convert("1"), transparency=255
    ),
    "tRNS, 16 bits, black on transparent white": saved(
        Image.fromarray((255 - GREY).astype(np.uint16) * 257), transparency=65535
    ),
    "tRNS, white on transparent grey": saved(
        Image.fromarray(np.where(DRAWN, 255, 128).astype(np.uint8)), transparency=128
    ),
    "tRNS, a transparent colour of 16 bits": lambda path: raw(
        path, np.stack([255 - GREY] * 3, axis=-1).astype(np.uint16) * 257, 2, (b"tRNS", b"\xff" * 6)
    ),
    "two frames, the second drawn": saved(
        Image.fromarray(BLACK), save_all=True, append_images=[Image.fromarray(GREY)]
    ),
    "two frames, the first drawn": saved(
        Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(BLACK)]
    ),
    "two frames and a picture instead": saved(
        Image.fromarray(BLACK),
        save_all=True,
        default_image=True,
        append_images=[Image.fromarray(GREY)],
    ),
    "EXIF, on its side": saved(Image.fromarray(GREY), exif=exif(6)),
    "EXIF, mirrored": saved(Image.fromarray(GREY), exif=exif(2)),
    "numbers in RGBA of 16 bits": lambda path: raw(
        path, np.stack([DRAWN, DRAWN, DRAWN, DRAWN], axis=-1).astype(np.uint16), 6
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
@wanted
def test_what_is_no_outline_any_more_is_refused_never_shrunk_or_grown(
    tmp_path: Path, kind: str, structures: Structures
) -> None:
    with pytest.raises(UnusableFile) as caught:
        read_png(UNLIKE[kind](tmp_path / "m.png"), SHAPE, structures)
    assert caught.value.reason is Reason.MASK_UNUSABLE


@pytest.mark.parametrize("drawn", [~DRAWN, np.ones(SHAPE, bool)])
def test_a_mask_that_is_drawn_along_all_of_its_border_is_told(
    tmp_path: Path, drawn: Pixels
) -> None:
    Image.fromarray(np.where(drawn, 255, 0).astype(np.uint8)).save(tmp_path / "m.png")
    told: list[UnusableFile] = []
    found = read_png(tmp_path / "m.png", SHAPE, {"one": (255,)}, told.append)
    assert np.array_equal(found > 0, drawn)
    assert [one.reason for one in told] == [Reason.MASK_INVERTED]


@pytest.mark.parametrize(
    ("guard", "kind"),
    [
        ("_beside_clear", "tRNS, black on transparent white"),
        ("_check_one_upright", "two frames, the second drawn"),
    ],
)
def test_the_checks_turn_red_where_a_pngs_transparency_or_frames_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str, kind: str
) -> None:
    def passed_over(_picture: object, *rest: Pixels) -> Pixels:
        return rest[0] if rest else BLACK

    monkeypatch.setattr(png_values, guard, passed_over)
    found = read_png(UNLIKE[kind](tmp_path / "m.png"), SHAPE, {"one": (0,)})
    assert not np.array_equal(found > 0, DRAWN)


def speckled(path: Path, count: int) -> Pixels:
    """Write the outline with so many of its pixels grey."""
    values = GREY.copy()
    rows, columns = np.nonzero(DRAWN)
    values[rows[:count], columns[:count]] = 100
    Image.fromarray(values).save(path)
    return values


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_few_greys_of_no_structure_are_told(tmp_path: Path, count: int) -> None:
    values = speckled(tmp_path / "m.png", count)
    told: list[UnusableFile] = []
    found = read_png(tmp_path / "m.png", SHAPE, {"one": (255,)}, told.append)
    assert np.array_equal(found > 0, values == 255)
    assert len(told) == (1 if count else 0)


def test_more_than_a_hundredth_of_greys_of_no_structure_is_refused(tmp_path: Path) -> None:
    speckled(tmp_path / "m.png", 5)
    with pytest.raises(UnusableFile) as caught:
        read_png(tmp_path / "m.png", SHAPE, {"one": (255,)})
    assert "100" in caught.value.detail


@pytest.mark.parametrize("top", [3, 12])
def test_label_numbers_that_a_run_does_not_want_are_background(tmp_path: Path, top: int) -> None:
    values = (ROWS * (top + 1) // SHAPE[0]).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    told: list[UnusableFile] = []
    found = read_png(tmp_path / "m.png", SHAPE, {"a": (1,), "b": (top,)}, told.append)
    assert np.array_equal(found, np.where(values == 1, 1, np.where(values == top, 2, 0)))
    assert np.array_equal(read_png(tmp_path / "m.png", SHAPE, {"a": (0,)}) > 0, values > 0)
    assert not told


@pytest.mark.parametrize("label", [2, 3, 7, 20])
@pytest.mark.parametrize("named", ["itself", "every value"])
def test_label_numbers_that_were_smoothed_are_refused(
    tmp_path: Path, label: int, named: str
) -> None:
    square = np.zeros((48, 48), np.uint8)
    square[15:35, 12:32] = label
    small = Image.fromarray(square).resize((20, 20), Image.Resampling.BILINEAR)
    small.resize((48, 48), Image.Resampling.BILINEAR).save(tmp_path / "m.png")
    structures = {"lesion": (label if named == "itself" else 0,)}
    with pytest.raises(UnusableFile) as caught:
        read_png(tmp_path / "m.png", (48, 48), structures)
    assert caught.value.reason is Reason.MASK_UNUSABLE


def numbers(kind: str, size: int = 96) -> NDArray[np.uint8]:
    """Return label numbers as programs draw them, in a picture of any size."""
    rows, columns = np.indices((size, size)) * 96 / size
    found = np.zeros((size, size), np.uint8)

    def disc(row: int, column: int, radius: float) -> Pixels:
        return np.asarray((rows - row) ** 2 + (columns - column) ** 2 < radius**2)

    discs = {
        "one area of 2": [(2, 40, 50, 20)],
        "one area of 3": [(3, 40, 50, 20)],
        "1 and 2 apart": [(1, 28, 28, 18), (2, 65, 65, 18)],
        "1 and 2 beside each other": [(1, 45, 40, 22), (2, 45, 62, 18)],
        "2 inside 1": [(1, 45, 45, 30), (2, 40, 50, 12)],
        "2 inside 1, at its border": [(1, 45, 45, 30), (2, 45, 65, 8)],
        "a wall of 1": [(1, 40, 50, 22), (2, 40, 50, 17)],
        "a heart": [(1, 40, 25, 18), (2, 40, 50, 20), (3, 40, 50, 14)],
        "a wall of 2": [(2, 40, 50, 20), (1, 40, 50, 18)],
    }
    for label, row, column, radius in discs[kind]:
        found[disc(row, column, radius)] = label
    return found


SMOOTHED: dict[str, tuple[int, Image.Resampling]] = {
    "enlarged": (48, Image.Resampling.BILINEAR),
    "enlarged more": (32, Image.Resampling.BICUBIC),
    "enlarged a little": (64, Image.Resampling.BILINEAR),
    "drawn fine": (384, Image.Resampling.BOX),
    "drawn finer": (288, Image.Resampling.LANCZOS),
}
TWO = {"a": (1,), "b": (2,)}


@pytest.mark.parametrize("how", SMOOTHED)
@pytest.mark.parametrize("kind", ["one area of 2", "one area of 3", "1 and 2 apart"])
def test_a_rim_of_one_that_smoothing_drew_around_two_is_no_structure(
    tmp_path: Path, kind: str, how: str
) -> None:
    size, method = SMOOTHED[how]
    Image.fromarray(numbers(kind, size)).resize((96, 96), method).save(tmp_path / "m.png")
    for structures in (TWO, {**TWO, "c": (3,)}):
        with pytest.raises(UnusableFile) as caught:
            read_png(tmp_path / "m.png", (96, 96), structures)
        assert caught.value.reason is Reason.MASK_UNUSABLE
        assert "as smoothing makes it" in caught.value.detail or "smoothed" in caught.value.detail


@pytest.mark.parametrize(
    "kind",
    [
        "one area of 2",
        "1 and 2 apart",
        "1 and 2 beside each other",
        "2 inside 1",
        "a wall of 1",
        "2 inside 1, at its border",
        "a heart",
        "a wall of 2",
    ],
)
def test_numbers_as_they_were_drawn_are_used_without_a_word(tmp_path: Path, kind: str) -> None:
    values = numbers(kind)
    Image.fromarray(values).save(tmp_path / "m.png")
    told: list[UnusableFile] = []
    found = read_png(tmp_path / "m.png", (96, 96), {**TWO, "c": (3,)}, told.append)
    assert np.array_equal(found, values)
    assert not told


def test_a_rim_between_two_areas_is_told(tmp_path: Path) -> None:
    values = numbers("2 inside 1", 48)
    values[values == 2] = 3
    Image.fromarray(values).resize((96, 96), Image.Resampling.BILINEAR).save(tmp_path / "m.png")
    told: list[UnusableFile] = []
    read_png(tmp_path / "m.png", (96, 96), {**TWO, "c": (3,)}, told.append)
    assert [one.reason for one in told] == [Reason.MASK_RIM]
    assert "a rim of 2" in told[0].detail


@pytest.mark.parametrize(
    ("colours", "said"),
    [
        ([(0, 0, 0), (200, 0, 0)], "read as its numbers (0 black)"),
        ([(0, 0, 0), (255, 255, 255)], "read as the greys that it shows"),
        ([(0, 0, 0), (1, 1, 1)], ""),
    ],
)
def test_how_a_palette_was_read_is_said_in_words(
    tmp_path: Path, colours: list[tuple[int, int, int]], said: str
) -> None:
    site = tmp_path / "site"
    palette(DRAWN, *colours).save(_made(site, "P1"))
    write_labels(site, [{"PatientID": "P1", "mask": "P1.png"}])
    config = config_of(
        "{kind: segmentation, structures: {one: [0]}}",
        "{images: {size: [48, 48]}, smallest_cohort: 1}",
        "unet",
    )
    cohort = load(site, config, tmp_path / "cache")
    assert int(cohort.items.target.sum()) == DRAWN.sum()
    told = [p.detail for p in cohort.unusable if p.reason is Reason.MASK_PALETTE]
    assert len(told) == bool(said)
    assert said in " ".join(told)


def test_greys_that_fill_areas_all_count_where_every_value_does(tmp_path: Path) -> None:
    """Lesions numbered over all greys, as programs save instances, are not taken for edges."""
    values = np.kron(np.arange(16).reshape(4, 4) * 17, np.ones((12, 12))).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    assert np.array_equal(read_png(tmp_path / "m.png", SHAPE, {"a": (0,)}) > 0, values > 0)


def test_a_cohort_lists_greys_that_were_left_out_and_refuses_a_jpeg(tmp_path: Path) -> None:
    site = tmp_path / "site"
    odd = GREY.copy()
    odd[22, 25] = 128
    Image.fromarray(odd).save(_made(site, "P1"))
    Image.fromarray(GREY).save(_made(site, "P2").with_suffix(".jpg"), quality=95)
    rows = [{"PatientID": "P1", "mask": "P1.png"}, {"PatientID": "P2", "mask": "P2.jpg"}]
    write_labels(site, rows)
    config = config_of(
        "{kind: segmentation, structures: {one: [255]}}",
        "{images: {size: [48, 48]}, smallest_cohort: 1}",
        "unet",
    )
    cohort = load(site, config, tmp_path / "cache")
    assert int(cohort.items.target.sum()) == DRAWN.sum() - 1
    reasons = {p.what: (p.reason, p.detail) for p in cohort.unusable}
    assert reasons["P1.dcm"][0] is Reason.MASK_GREYS
    assert reasons["P2.dcm"][0] is Reason.MASK_UNUSABLE
    assert "PNG" in reasons["P2.dcm"][1]


@pytest.mark.parametrize("empty", [False, True])
def test_one_outline_for_two_patients_is_refused_unless_it_is_empty(
    tmp_path: Path,
    empty: bool,  # noqa: FBT001
) -> None:
    site = tmp_path / "site"
    Image.fromarray(BLACK if empty else GREY).save(_made(site, "P1"))
    _made(site, "P2")
    Image.fromarray(GREY).save(_made(site, "P3"))
    masks = {"P1": "P1.png", "P2": "P1.png", "P3": "P3.png"}
    write_labels(site, [{"PatientID": p, "mask": mask} for p, mask in masks.items()])
    config = config_of(
        "{kind: segmentation, structures: {one: [255]}}",
        "{images: {size: [48, 48]}, smallest_cohort: 1}",
        "unet",
    )
    cohort = load(site, config, tmp_path / "cache")
    assert cohort.items.pseudonyms == (("P1", "P2", "P3") if empty else ("P3",))
    told = {p.what for p in cohort.unusable if "for several patients" in p.detail}
    assert told == (set() if empty else {"P1.dcm", "P2.dcm"})


def _made(site: Path, patient: str) -> Path:
    save(site / f"{patient}.dcm", _plain(patient))
    return site / f"{patient}.png"


def _plain(patient: str) -> Dataset:
    return image(noise(*SHAPE), patient, f"S{patient}")
