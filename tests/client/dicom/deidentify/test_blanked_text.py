"""Text that is read in a picture is blanked, shown to a person, and never released unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import FileDataset
from typer.testing import CliRunner

from client.cli.app import app
from client.cli.data import deidentify as command
from client.dicom.deidentify.blanked_text import BlankedFrame, blank_text
from client.dicom.pixels.burned_in_text import Box, text_finder
from client.dicom.reasons import UnusableFile
from tests.client.dicom_files import image, save

pytestmark = pytest.mark.slow

NAME = "MUELLER ANNA 1970"


def screen() -> np.ndarray:
    """Return a capture of a grey disc with a name above it."""
    picture = Image.new("L", (320, 240), 0)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((110, 90, 210, 190), fill=120)
    draw.text((20, 20), NAME, fill=255, font_size=22)
    return np.asarray(picture)


def capture(folder: Path) -> FileDataset:
    made = image(screen(), patient="P1")
    save(folder / "in" / "a.dcm", made)
    return made


def test_what_is_read_is_blanked_and_the_rest_stays() -> None:
    find = text_finder()
    assert find is not None
    shown: list[BlankedFrame] = []
    before = screen()[None]
    after = blank_text(before, find, shown.append)
    assert find(np.repeat(after[0][..., None], 3, axis=2)) == []
    assert after[0, 15:50].max() == 0
    assert np.array_equal(after[0, 80:], before[0, 80:])
    assert before[0, 15:50].max() == 255  # the source is not changed
    (one,) = shown
    assert one.boxes >= 1
    assert one.before.shape == one.after.shape == (240, 320, 3)


def test_an_image_in_which_text_is_still_read_is_refused() -> None:
    def stubborn(_picture: np.ndarray) -> list[Box]:
        return [(1, 1, 5, 5)]

    with pytest.raises(UnusableFile) as refused:
        blank_text(screen()[None], stubborn, lambda _frame: None)
    assert "still read" in refused.value.detail


def test_it_is_shown_before_it_is_released(tmp_path: Path) -> None:
    sent = capture(tmp_path)
    home, out = tmp_path / "home", tmp_path / "out"

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, "--home", str(home)])
        return done.exit_code, done.output

    assert typed("init", "north", "--data", str(tmp_path / "in"))[0] == 0
    release = ("deidentify", str(tmp_path / "in"), "--out", str(out), "--blank-text")
    status, said = typed(*release)
    assert (status, list(out.rglob("*.dcm"))) == (3, [])
    page = home / "blanked-text.html"
    assert str(page) in said.replace("\n", "")
    assert oct(page.stat().st_mode)[-3:] == "600"
    assert page.read_text().count("data:image/png") == 2
    assert typed(*release, "--pixels-checked")[0] == 0
    (path,) = out.rglob("*.dcm")
    got = dcmread(path)
    assert got.pixel_array[15:50].max() == 0
    assert np.array_equal(got.pixel_array[80:], sent.pixel_array[80:])
    codes = [item.CodeValue for item in got.DeidentificationMethodCodeSequence]
    assert "113101" in codes
    assert typed("deidentify", str(tmp_path / "in"), "--out", str(out), "--pixels-checked")[0] == 0
    assert dcmread(path).pixel_array[15:50].max() == 255  # not asked for


def test_without_a_reader_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(tmp_path)
    monkeypatch.setattr(command, "text_finder", lambda: None)
    home = str(tmp_path / "home")
    CliRunner().invoke(app, ["init", "north", "--data", str(tmp_path / "in"), "--home", home])
    words = ["deidentify", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--blank-text"]
    done = CliRunner().invoke(app, [*words, "--home", home])
    assert done.exit_code == 2
    assert "install ocr.txt" in done.output
