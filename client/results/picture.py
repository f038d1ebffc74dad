"""Heatmap and outlines drawn over their frame, with the warning text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from client.dicom.reading.read import read_dataset, read_pixels
from client.results.colours import Rgb, colour
from client.results.equipment import ReportedScore
from client.results.orientation import Sides, sides_of
from client.site.plain_text import shown
from common.platform.errors import ConfigurationError

Picture = NDArray[np.uint8]  # (rows, columns, 3), sRGB

#: Stands over every picture, word for word.
BANNER = "RESEARCH - not for clinical use"
#: A small image is enlarged, by whole pixels, until its text can be read.
_LEAST_COLUMNS = 512
_MOST_COLUMNS = 2048
#: The part of the colour where the heatmap is 1; the image stays visible through it.
_STRENGTH = 0.6
_SCALE_COLOURS = ((0, 0, 128), (0, 128, 255), (64, 224, 96), (255, 208, 0), (200, 0, 0))
#: How long the heatmap's scale is, in heights of a line.
_SCALE_LENGTH = 8
_WHITE, _GREY, _ALERT = (255, 255, 255), (200, 200, 200), (255, 176, 0)


def chosen_frame(finding: ReportedScore) -> int | None:
    """Return the position of the frame to draw: the heatmap's, else the one that outlines most."""
    score = finding.score
    if score.heatmap is not None:
        return finding.source.frames.index((score.heatmap.source, score.heatmap.frame))
    if score.outlines is None or not score.outlines.labels.any():
        return None
    return int(np.count_nonzero(score.outlines.labels, axis=(1, 2)).argmax())


def draw(finding: ReportedScore, position: int) -> Picture:
    """Return the frame with what was found, and the text beneath and above it, not over it."""
    source, frame = finding.source.frames[position]
    given = finding.score.heatmap
    if given is not None and given.picture is not None:
        image = given.picture
    else:
        pixels = read_pixels(read_dataset(finding.source.paths[source]))
        image = _grey_levels(pixels.values(frame))
    times = max(1, -(-_LEAST_COLUMNS // image.shape[1]))
    step = max(1, image.shape[1] // _MOST_COLUMNS)
    image = image[::step, ::step].repeat(times, 0).repeat(times, 1)
    heatmap, outlines = finding.score.heatmap, finding.score.outlines
    if heatmap is not None:
        image = _heated(image, heatmap.values[::step, ::step])
    if outlines is not None:
        labels = outlines.labels[position, ::step, ::step].repeat(times, 0).repeat(times, 1)
        image = _outlined(image, labels, times)
    return _captioned(image, list(_lines(finding, position)), _sides(finding, position))


def _sides(finding: ReportedScore, position: int) -> Sides | None:
    """Return what letters the image gets; a slide is no picture of a patient's sides."""
    source, frame = finding.source.frames[position]
    heatmap = finding.score.heatmap
    if heatmap is not None and heatmap.picture is not None:
        return None
    return sides_of(finding.source.headers[source], finding.source.read[source], frame)


def _grey_levels(values: NDArray[np.float32]) -> Picture:
    """Return 8 bits a colour; grey values are windowed to what nearly all of them lie in."""
    if values.ndim == 3:
        scale = 255.0 / max(255.0, float(values.max()))
        return np.asarray(np.clip(values * scale, 0, 255), np.uint8)
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    if high <= low:
        low, high = float(values.min()), float(values.max()) + 1.0
    grey = np.asarray(np.clip((values - low) * (255 / (high - low)), 0, 255), np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _heated(image: Picture, values: NDArray[np.float32]) -> Picture:
    """Colour by the heatmap, smoothly enlarged; where it is 0 the image stays as it is."""
    rows, columns = image.shape[:2]
    picture = Image.fromarray(np.clip(values, 0, 1).astype(np.float32))
    heat = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
    stops = np.linspace(0, 1, len(_SCALE_COLOURS))
    channels = [np.interp(heat, stops, [c[i] for c in _SCALE_COLOURS]) for i in range(3)]
    part = (_STRENGTH * heat)[:, :, None]
    mixed = image * (1 - part) + np.stack(channels, axis=2) * part
    return np.asarray(mixed, np.uint8)


def _outlined(image: Picture, labels: NDArray[np.uint8], width: int) -> Picture:
    """Draw each structure's border, inside it."""
    found = image.copy()
    for label in np.unique(labels[labels > 0]):
        within = labels == label
        inner = within.copy()
        for _ in range(max(1, min(width, 3))):
            padded = np.pad(inner, 1)
            inner = (
                inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
            )
        found[within & ~inner] = colour(int(label))
    return found


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of text beneath the image, with what it explains before it."""

    text: str
    fill: Rgb = _GREY
    box: Rgb | None = None  # the colour of an outline
    scale: bool = False  # the colours of a heatmap


def _lines(finding: ReportedScore, position: int) -> Iterator[_Line]:
    score, heatmap = finding.score, finding.score.heatmap
    if score.abstained is not None:
        yield _Line(text=f"No answer: {score.abstained}", fill=_ALERT)
    for quantity in score.quantities:
        yield _Line(text=f"{quantity.meaning}: {quantity.words}", fill=_WHITE)
    if heatmap is not None:
        yield _Line(text=f"0 to 1: {heatmap.method} for {heatmap.label}", scale=True)
    if score.outlines is not None:
        for number, name in enumerate(score.outlines.structures, 1):
            here = (
                "" if (score.outlines.labels[position] == number).any() else ", not on this image"
            )
            yield _Line(text=f"outline: {name}{here}", fill=colour(number), box=colour(number))
    frames = len(finding.source.frames)
    if heatmap is not None and heatmap.picture is not None:
        yield _Line(text="the whole slide, made small")
    elif frames > 1:
        why = "" if heatmap is not None else ", the one with the largest outline"
        yield _Line(text=f"image {position + 1} of {frames}{why}")
    yield _Line(text=f"{score.model.name}, weights {score.model.weights[:12]}")


def _captioned(image: Picture, lines: Sequence[_Line], sides: Sides | None) -> Picture:
    """Put the warning above the image, its sides beside it and the lines beneath it."""
    rows, columns = image.shape[:2]
    size = max(16, columns // 32)
    font = ImageFont.truetype(_font(), size)
    line, margin = round(size * 1.4), size // 2
    # A side has up to three letters.
    beside, beneath = (0, 0) if sides is None else (round(size * 2.4), line)
    top = (1 if sides is None else 2) * line + margin
    width = columns + 2 * beside
    wrapped = [
        (part, one, number)
        for one in lines
        for number, part in enumerate(
            _wrapped(one.text, width - 2 * margin - _indent(one, size, line), font)
        )
    ]
    height = top + rows + beneath + line * len(wrapped) + margin
    picture = Image.new("RGB", (width, height))
    picture.paste(Image.fromarray(image), (beside, top))
    pen = ImageDraw.Draw(picture)
    pen.text((margin, margin // 2), BANNER, fill=_ALERT, font=font)
    if sides is not None:
        middle = (beside + columns // 2, top + rows // 2)
        for letters, place in (
            (sides.top, (middle[0], top - line // 2)),
            (sides.bottom, (middle[0], top + rows + line // 2)),
            (sides.left, (beside // 2, middle[1])),
            (sides.right, (width - beside // 2, middle[1])),
        ):
            pen.text(place, letters, fill=_WHITE, font=font, anchor="mm")
    for row, (text, one, number) in enumerate(wrapped):
        left, upper = margin, top + rows + beneath + margin // 2 + row * line
        if number == 0 and one.box is not None:
            pen.rectangle((left, upper, left + size, upper + size), fill=one.box)
        if number == 0 and one.scale:
            picture.paste(_scale(size, line), (left, upper))
        pen.text((left + _indent(one, size, line), upper), text, fill=one.fill, font=font)
    return np.asarray(picture)


def _indent(line: _Line, size: int, height: int) -> int:
    """Return how much room what a line explains takes before it."""
    if line.scale:
        return _SCALE_LENGTH * height + size // 2
    return 0 if line.box is None else round(size * 1.5)


def _scale(size: int, height: int) -> Image.Image:
    """Return the heatmap's colours from 0 to 1, as they lie on a grey image."""
    values = np.linspace(0, 1, _SCALE_LENGTH * height, dtype=np.float32)[None].repeat(size, 0)
    grey = np.full((*values.shape, 3), 128, np.uint8)
    return Image.fromarray(_heated(grey, values))


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> Iterator[str]:
    """Yield the text in lines that fit, broken between words, or within one that is too long."""
    line = ""
    for word in shown(text).split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        rest = word
        while font.getlength(rest) > width:
            most = next(n for n in range(len(rest), 0, -1) if font.getlength(rest[:n]) <= width)
            yield rest[:most]
            rest = rest[most:]
        line = rest
    if line:
        yield line


@cache
def _font() -> str:
    """Return DejaVu Sans, which has the letters of Europe's and many other scripts."""
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        message = "matplotlib, which brings the font of pictures, is not installed."
        raise ConfigurationError(message)
    folder = Path(next(iter(spec.submodule_search_locations)))
    return str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")
