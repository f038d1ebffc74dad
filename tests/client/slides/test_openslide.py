"""Slides as scanners write them, by OpenSlide: the tiles of DICOM, and nothing of a label."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import pytest
import torch

from client.dicom.reasons import Reason
from client.slides.frames import FrameReader
from client.slides.levels import levels_of
from client.slides.openslide_levels import OpenSlideReader, openslide_levels
from common.config.run_config import RunConfig, parse_config
from common.platform.errors import CohortError
from tests.client.dicom_files import load, save, write_labels
from tests.client.slide_files import Rgb, Syntax, level, tissue

#: TIFF 6.0: bytes of a number of each type.
_SHORT, _LONG, _TEXT, _RATIO = 3, 4, 2, 5


@dataclass(frozen=True, kw_only=True)
class Page:
    """One picture of a TIFF."""

    values: Rgb
    tile: int = 0  # 0: one strip, as scanners write labels
    said: str = ""  # ImageDescription
    a_centimetre: int = 0  # pixels; 0: not said

    def parts(self) -> list[bytes]:
        if not self.tile:
            return [self.values.tobytes()]
        side, (rows, columns) = self.tile, self.values.shape[:2]
        down, across = -(-rows // side), -(-columns // side)
        whole = np.zeros((down * side, across * side, 3), np.uint8)
        whole[:rows, :columns] = self.values
        return [
            whole[r * side : (r + 1) * side, c * side : (c + 1) * side].tobytes()
            for r in range(down)
            for c in range(across)
        ]

    def tags(self, places: Sequence[int], sizes: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        rows, columns = self.values.shape[:2]
        found = {
            254: (_LONG, numbers(0)),
            256: (_LONG, numbers(columns)),
            257: (_LONG, numbers(rows)),
            258: (_SHORT, struct.pack("<3H", 8, 8, 8)),
            259: (_SHORT, struct.pack("<H", 1)),
            262: (_SHORT, struct.pack("<H", 2)),
            277: (_SHORT, struct.pack("<H", 3)),
            284: (_SHORT, struct.pack("<H", 1)),
        }
        if self.said:
            found[270] = _TEXT, self.said.encode() + b"\0"
        if self.a_centimetre:
            found[282] = found[283] = _RATIO, numbers(self.a_centimetre, 1)
            found[296] = _SHORT, struct.pack("<H", 3)
        if self.tile:
            found |= {322: (_LONG, numbers(self.tile)), 323: (_LONG, numbers(self.tile))}
            return found | {324: (_LONG, numbers(*places)), 325: (_LONG, numbers(*sizes))}
        found[278] = _LONG, numbers(rows)
        return found | {273: (_LONG, numbers(*places)), 279: (_LONG, numbers(*sizes))}


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def write_tiff(path: Path, *pages: Page) -> Path:
    """Write a TIFF of uncompressed pictures."""
    out, link = bytearray(b"II*\0\0\0\0\0"), 4
    for page in pages:
        parts, places = page.parts(), []
        for part in parts:
            places.append(len(out))
            out += part
        entries = b""
        for tag, (kind, value) in sorted(page.tags(places, [len(p) for p in parts]).items()):
            count = len(value) // {_SHORT: 2, _LONG: 4, _TEXT: 1, _RATIO: 8}[kind]
            held = value.ljust(4, b"\0")
            if len(value) > 4:
                held = numbers(len(out))
                out += value + b"\0" * (len(value) % 2)
            entries += struct.pack("<HHI", tag, kind, count) + held
        count = len(entries) // 12
        out[link : link + 4] = numbers(len(out))
        link = len(out) + 2 + len(entries)
        out += struct.pack("<H", count) + entries + numbers(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)
    return path


def shrunk(matrix: Rgb) -> Rgb:
    rows, columns = matrix.shape[:2]
    blocks = matrix.reshape(rows // 4, 4, columns // 4, 4, 3)
    return blocks.mean(axis=(1, 3)).astype(np.uint8)


def write_svs(path: Path, matrix: Rgb, microns: str = "|MPP = 0.5") -> Path:
    """Write a slide as Aperio does, with a thumbnail, a label and a picture of the glass."""
    secret = np.full((60, 80, 3), 7, np.uint8)
    rows, columns = matrix.shape[:2]
    said = f"Aperio Image Library v1\r\n{columns}x{rows} (64x64)|AppMag = 20{microns}"
    return write_tiff(
        path,
        Page(values=matrix, tile=64, said=said),
        Page(values=secret, said="Aperio\r\nthumbnail 80x60"),
        Page(values=shrunk(matrix), tile=64, said="Aperio\r\nlevel"),
        Page(values=secret, said="Aperio\r\nlabel 80x60"),
        Page(values=secret, said="Aperio\r\nmacro 80x60"),
    )


def config_of(form: str, model: str = "{network: small_cnn, width: 2, pool: mean}") -> RunConfig:
    return parse_config(f"""
name: slides
task: {{kind: diagnosis, target: tumour}}
cohort:
  images: {{size: [64, 64], channels: 3, fit: stretch, intensity: window, window: [0, 255],
            format: {form}, slide: {{mpp: 0.5, tile: 64, stain: macenko_fixed}}}}
  smallest_cohort: 1
model: {model}
training: {{rounds: 1}}
privacy: none
""")


def refused(site: Path, cache: Path) -> Reason:
    with pytest.raises(CohortError) as found:
        load(site, config_of("files"), cache)
    (problem,) = found.value.unusable  # type: ignore[attr-defined]  # NobodyUsable
    reason: Reason = problem.reason
    return reason


@pytest.mark.parametrize("model", ["{network: small_cnn, width: 2, pool: mean}", "frozen"])
def test_a_slide_gives_the_tiles_of_its_dicom_and_nothing_of_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    model = model.replace("frozen", "{network: frozen_features, projection: 32, pool: attention}")
    matrix = tissue(256, 320)
    for number, one in enumerate((matrix, shrunk(matrix))):
        found = level(one, 0.5 * 4**number, number=number)
        save(tmp_path / "dicom" / f"{number}.dcm", found)
    write_labels(tmp_path / "dicom", [{"PatientID": "P1", "tumour": 1}])
    write_svs(tmp_path / "files" / "a.svs", matrix)
    write_labels(tmp_path / "files", [{"PatientID": "P1", "image": "a.svs", "tumour": 1}])

    def never(_slide: openslide.OpenSlide) -> None:
        raise AssertionError("a label was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(never))
    expected = load(tmp_path / "dicom", config_of("dicom", model), tmp_path / "cache")
    found = load(tmp_path / "files", config_of("files", model), tmp_path / "cache")
    assert not found.unusable
    assert len(found.items.image) > 5
    torch.testing.assert_close(found.items.image[:], expected.items.image[:], atol=0, rtol=0)


@pytest.mark.parametrize("syntax", ["jpeg", "jpeg2000"])
def test_openslide_reads_the_same_of_dicom_as_we_do(tmp_path: Path, syntax: Syntax) -> None:
    """Also beyond the edges and across tiles; levels have the same microns a pixel."""
    matrix = tissue(512, 512)
    made = [
        level(m, 0.5 * 4**n, number=n, syntax=syntax)
        for n, m in enumerate((matrix, shrunk(matrix)))
    ]
    paths = [save(tmp_path / f"{number}.dcm", one) for number, one in enumerate(made)]
    ours = levels_of(paths)
    theirs = openslide_levels(paths[0])
    assert [(one.rows, one.columns) for one in ours] == [(t.rows, t.columns) for t in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert other.microns == pytest.approx(one.microns)
        with FrameReader(one) as mine, OpenSlideReader(other) as peer:
            for place in ((0, 0, 100, 90), (33, 50, 64, 64), (one.rows - 20, 3, 64, 64)):
                difference = np.abs(mine.region(*place).astype(int) - peer.region(*place))
                assert difference.mean() <= 1


def test_the_nearest_level_is_taken_and_none_is_guessed(tmp_path: Path) -> None:
    matrix, site = tissue(256, 256), tmp_path / "site"
    write_svs(site / "silent.svs", matrix, microns="")
    write_tiff(site / "plain.tif", Page(values=matrix, tile=64))
    write_tiff(site / "coarse.tif", Page(values=matrix, tile=64, a_centimetre=2000))
    write_tiff(site / "fine.tif", Page(values=matrix, tile=64, a_centimetre=40_000))
    write_tiff(site / "strip.tif", Page(values=matrix))
    (site / "text.ndpi").write_text("no slide " * 100)
    (site / "a.png").write_bytes(b"\x89PNG")
    (site / "cut.svs").write_bytes((site / "silent.svs").read_bytes()[:3000])
    for name, reason in {
        "silent.svs": Reason.NO_MAGNIFICATION,  # whatever its objective
        "plain.tif": Reason.NO_MAGNIFICATION,
        "coarse.tif": Reason.NO_MAGNIFICATION,
        "strip.tif": Reason.FILE_UNKNOWN,
        "text.ndpi": Reason.FILE_UNKNOWN,
        "a.png": Reason.FILE_UNKNOWN,
        "cut.svs": Reason.FILE_UNKNOWN,
    }.items():
        write_labels(site, [{"PatientID": "P1", "image": name, "tumour": 1}])
        assert refused(site, tmp_path / "cache") is reason, name
    write_labels(site, [{"PatientID": "P1", "image": "fine.tif", "tumour": 1}])
    found = load(site, config_of("files"), tmp_path / "cache")
    # At 0.25 microns a pixel, 64 pixels at 0.5 are 128 of the file's.
    assert len(found.items.image) == 3


def test_a_slides_data_beside_it_stay_in_the_folder(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "a").mkdir(parents=True)
    (site / "a.mrxs").write_bytes(b"\xff\xd8\xff" + b"\0" * 200)
    (tmp_path / "elsewhere.dat").write_bytes(b"\0" * 100)
    (site / "a" / "Data0000.dat").symlink_to(tmp_path / "elsewhere.dat")
    write_labels(site, [{"PatientID": "P1", "image": "a.mrxs", "tumour": 1}])
    assert refused(site, tmp_path / "cache") is Reason.FILE_OUTSIDE


def test_without_the_extra_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svs(tmp_path / "a.svs", tissue(256, 256))
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.svs", "tumour": 1}])
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(CohortError, match=r"pip install 'wardround\[pathology\]'"):
        load(tmp_path, config_of("files"), tmp_path / "cache")
