"""Values of a PNG mask as a viewer shows them, and whether they are labels.

A palette is read to its colours: programs that reduce colours number them by how often they
occur, so an index says nothing. Only where the colours are colours, as label editors save them
(index 0 black), the index is the label.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.dicom.masks.mask_remarks import Tell
from client.dicom.reasons import Reason, UnusableFile

if TYPE_CHECKING:
    from PIL.Image import Image

Values = NDArray[np.integer]  # (rows, columns)
_Pixels = TypeVar("_Pixels", NDArray[np.integer], NDArray[np.bool_])

#: Pictures whose values are all below this number labels; others show greys.
_GREYS_FROM = 32
#: Part of the drawn pixels that may hold greys of no structure.
_FEW = 0.01
#: Part of a value's pixels that lie among their own kind, from which it is an area, no edge.
_AREA = 0.25
#: Part of an area's border along which a thin rim is taken for smoothing, or noticed.
_HALF, _THIRD = 0.5, 1 / 3
#: Part of its share that each step between two values has in a rim that smoothing made.
_STEP = 0.15
#: A value is faint where it is below the highest by this factor: the ringing of a JPEG.
_FAINT = 8
#: Bytes of the header (PNG 11.2.1) that hold bits per sample and type of colour.
_BITS, _COLOUR = 24, 25
#: The EXIF tag of how a picture is to be turned; 1 is not at all.
_ORIENTATION = 0x0112


def shown_values(path: Path, tell: Tell) -> Values:
    """Return grey values, 255 for white; MASK_UNUSABLE says why a picture has none.

    How a palette was read is told, where it makes a difference.
    """
    from PIL import Image

    try:
        head = path.read_bytes()[: _COLOUR + 1]
        with Image.open(path) as picture:
            if picture.format != "PNG":
                _refuse(f"a {picture.format} by the name of a PNG; save the outline without loss")
            _check_one_upright(picture)
            values = _values(picture, head[_BITS], tell)
    except UnusableFile:
        raise
    except Exception as error:
        # Pillow raises its own kinds, SyntaxError among them, on broken files.
        raise UnusableFile(Reason.MASK_UNUSABLE, type(error).__name__) from error
    if head[_BITS] == 16 and head[_COLOUR] and set(np.unique(values).tolist()) != {0, 255}:
        # Pillow keeps the upper 8 bits of such pictures, and small numbers are lost.
        _refuse("16 bits a sample with colours or alpha; save it as grey values")
    return values


def _check_one_upright(picture: Image) -> None:
    """Refuse several frames (APNG), of which one is read, and what a viewer may turn (eXIf)."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        _refuse(f"{frames} frames in one PNG; save the one that holds the outline")
    turned = picture.getexif().get(_ORIENTATION, 1)
    if turned != 1:
        _refuse(f"to be turned before it is shown (EXIF orientation {turned}); save it turned")


def _values(picture: Image, bits: int, tell: Tell) -> Values:
    if picture.mode in {"P", "PA"}:
        return _of_palette(picture, tell)
    found = _shown(picture)
    clear = picture.info.get("transparency")
    return found if clear is None else _beside_clear(picture, found, _scaled(clear, bits))


def _scaled(clear: object, bits: int) -> list[int]:
    """Return the value or colour of a tRNS chunk as Pillow scales samples (PNG 11.3.2.1).

    Of fewer bits than 16 only the lowest of the chunk's count.
    """
    named = clear if isinstance(clear, tuple) else (clear,)
    if bits == 16 and len(named) > 1:
        _refuse("16 bits a sample with a transparent colour; save it as grey values")
    most = 2**bits - 1
    return [(int(one) & most) * (255 // most if bits < 8 else 1) for one in named]


def _beside_clear(picture: Image, grey: Values, clear: list[int]) -> Values:
    """Return the grey values of a picture of which one value is transparent (tRNS).

    Where the value is an area's within, and all of the border is opaque and 0, it says nothing of
    what is drawn. Else it counts as an alpha channel does.
    """
    samples = np.asarray(picture)
    samples = samples * np.uint8(255) if picture.mode == "1" else samples
    alpha = (samples.reshape(*grey.shape, -1) != clear).any(axis=-1)
    border = _border(grey.shape)
    if not grey[border].any() and alpha[border].all():
        return grey
    return _drawn(grey, alpha)


def _shown(picture: Image) -> Values:
    values = np.asarray(picture)
    if picture.mode == "1":
        found: Values = values.astype(np.uint8) * np.uint8(255)
    elif picture.mode == "L":
        found = values
    elif picture.mode.startswith("I"):
        found = _of_16_bits(values)
    elif picture.mode == "RGB":
        found = _grey(values)
    elif picture.mode in {"LA", "RGBA"}:
        found = _with_alpha(values[..., :-1], values[..., -1])
    else:
        _refuse(f"a picture of mode {picture.mode}; save it as grey values")
    return found


def _with_alpha(colours: Values, alpha: Values) -> Values:
    if (colours == colours[0, 0]).all() and len(np.unique(alpha)) > 1:
        return alpha  # one colour everywhere
    return _drawn(_grey(colours), alpha)


def _of_16_bits(values: Values) -> Values:
    """Return values of 16 bits; where these are 8 bits spread over them, those."""
    if values.max(initial=0) == 0xFFFF and not (values % 257).any():
        return (values // 257).astype(np.uint8)
    return values


def _of_palette(picture: Image, tell: Tell) -> Values:
    index = np.asarray(picture)
    index = index[..., 0] if index.ndim == 3 else index
    colours = np.asarray(picture.convert("RGBA"))
    if (colours[..., :3] == colours[..., :1]).all():
        shown = _with_alpha(colours[..., :1], colours[..., 3])
        if (shown != index).any():
            _say(tell, "a palette of greys, read as the greys that it shows")
        return shown
    palette = picture.getpalette("RGB") or []
    if palette[:3] != [0, 0, 0] or len(np.unique(colours[..., 3])) > 1:
        _refuse("a palette of colours whose first is not black; save it as grey values")
    _say(tell, "a palette of colours, read as its numbers (0 black), which count as labels")
    return index


def _say(tell: Tell, detail: str) -> None:
    tell(UnusableFile(Reason.MASK_PALETTE, detail))


def _grey(values: Values) -> Values:
    if (values != values[..., :1]).any():
        _refuse("coloured; save it as grey values")
    return values[..., 0]


def _drawn(grey: Values, alpha: Values) -> Values:
    """Return the grey values; refused where the alpha shows another outline than they do."""
    if len(np.unique(alpha)) == 1:
        return grey
    if ((grey > 0) != (alpha > 0)).any() or len(np.unique(alpha[grey > 0])) > 1:
        _refuse("grey values and transparency show different outlines; save it without alpha")
    return grey


def drawn_around(labels: NDArray[np.uint8]) -> str:
    """Return what is to be told of a mask that is drawn along all of its picture's border.

    So lie outlines in black on white; an organ may fill its picture as well.
    """
    if not labels[_border(labels.shape)].all():
        return ""
    return f"{int(np.count_nonzero(labels))} of {labels.size} pixels are drawn, all its border too"


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the outermost pixels."""
    found = np.ones(shape, np.bool_)
    found[1:-1, 1:-1] = False
    return found


def strays(values: Values, named: set[int]) -> str:
    """Return what is to be told of grey values of no structure; MASK_UNUSABLE where they are many.

    They come from smoothing or lossy compression, and no threshold brings the outline back.
    Where every value counts (0 among the named), greys at an edge and faint ones are such, if
    they fill no area of their own; among label numbers, those at an edge.
    """
    stray = (values != 0) & ~np.isin(values, sorted(named))
    if values.max(initial=0) < _GREYS_FROM:
        # Label numbers: others are of other structures, unless smoothing put them between two.
        stray &= _between(values, least=2) & ~np.isin(values, _areas(values))
    elif 0 in named:
        faint = values < values.max(initial=0) / _FAINT
        stray &= (_between(values) | faint) & ~np.isin(values, _areas(values))
    count, drawn = int(stray.sum()), int(np.count_nonzero(values))
    if not count:
        return ""
    found = ", ".join(str(v) for v in np.unique(values[stray])[:5])
    detail = f"{count} of {drawn} drawn pixels hold greys of no structure ({found})"
    if count > _FEW * drawn:
        _refuse(f"{detail}: smoothed, or once a JPEG; save the outline without either")
    return detail


def _between(values: Values, least: int = _GREYS_FROM) -> NDArray[np.bool_]:
    """Return pixels between a darker and a brighter neighbour, `least` apart, on opposite sides."""
    padded = np.pad(values.astype(np.int64), 1, mode="edge")
    rows, columns = values.shape
    found = np.zeros(values.shape, np.bool_)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        other = padded[1 - down : 1 - down + rows, 1 - right : 1 - right + columns]
        low, high = np.minimum(one, other), np.maximum(one, other)
        found |= (low < values) & (values < high) & (high - low >= least)
    return found


def rims(values: Values) -> str:
    """Return what is to be told of thin rims of one label number between two others.

    Where a picture of label numbers was smoothed, 1 lies between 0 and 2 and is no structure:
    one or two pixels thick and along all of the area within. Where one does so along half of an
    area's border on the background, the mask is refused. Along a third, or between two areas, it
    may be drawn, and is told: of 3765 slices of real label maps (hippocampus, heart, abdomen, brain
    tumours) 1 has the first, 124 one of the others.
    """
    if values.max(initial=0) >= _GREYS_FROM:
        return ""
    values = _cut_out(values)
    thin, (low, high) = _thin(values), _sides(values)
    told = ""
    for inner in np.unique(high[thin & (low >= 0)]).tolist():
        area = (values == inner) & ~thin
        for ground, refused, noticed in ((True, _HALF, _THIRD), (False, 2.0, _HALF)):
            rim = np.zeros(values.shape, np.bool_)
            for outer in np.unique(low[thin & (high == inner)]).tolist():
                if outer >= 0 and (outer == 0) == ground:
                    rim |= _rim(values, thin & (low == outer) & (high == inner), outer, inner)
            share = _share_along(area, rim)
            if np.count_nonzero(rim) > _FEW * np.count_nonzero(values) and share >= noticed:
                told = (
                    f"a rim of {', '.join(map(str, np.unique(values[rim])))}, one or two pixels "
                    f"thick, along {share:.0%} of the border of {inner}, as smoothing makes it"
                )
                if share >= refused:
                    _refuse(f"{told}; save the outline without, or number a wall above its inside")
    return told


def _cut_out(values: Values) -> Values:
    """Return what is drawn, with some background around it."""
    rows, columns = (np.flatnonzero(values.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return values
    found = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(found, 3)


def _sides(values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a lower and a higher value within two pixels on opposite sides; -1 where none is."""
    padded = np.pad(values.astype(np.int64), 2, mode="edge")
    rows, columns = values.shape
    low, high = np.full(values.shape, -1), np.full(values.shape, -1)
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    for down, right in steps:
        one, other = (
            [
                padded[2 + k * down : 2 + k * down + rows, 2 + k * right : 2 + k * right + columns]
                for k in places
            ]
            for places in ((1, 2), (-1, -2))
        )
        below, above = np.minimum(*one), np.maximum(*other)
        found = (below < values) & (values < above) & (above - below >= 2) & (low < 0)
        low[found], high[found] = below[found], above[found]
    return low, high


def _thin(values: Values) -> NDArray[np.bool_]:
    """Return pixels that lie in no block of three by three of their own kind."""
    inside = np.logical_and.reduce([part == values for part in _around(values, "edge")])
    blocks = zip(_around(inside, "constant"), _around(values, "edge"), strict=True)
    return np.asarray(~np.logical_or.reduce([b & (part == values) for b, part in blocks]))


def _around(values: _Pixels, mode: Literal["edge", "constant"]) -> list[_Pixels]:
    """Return the nine pictures that are moved by a pixel at most."""
    padded = np.pad(values, 1, mode=mode)
    rows, columns = values.shape
    return [padded[d : d + rows, r : r + columns] for d in range(3) for r in range(3)]


def _rim(values: Values, between: NDArray[np.bool_], outer: int, inner: int) -> NDArray[np.bool_]:
    """Return pixels between two values, where every step from one to the other is among them."""
    steps = np.bincount(values[between], minlength=inner + 1)[outer + 1 : inner]
    whole = steps.min() >= _STEP * steps.sum() / len(steps)
    return between if whole else np.zeros_like(between)


def _share_along(area: NDArray[np.bool_], rim: NDArray[np.bool_]) -> float:
    """Return the part of an area's border that a rim lies along."""
    around = _around(area, "edge")
    border = area & ~np.logical_and.reduce([around[1], around[3], around[5], around[7]])
    beside = border & np.logical_or.reduce(_around(rim, "constant"))
    return int(np.count_nonzero(beside)) / max(int(np.count_nonzero(border)), 1)


def _areas(values: Values) -> list[int]:
    """Return the values that fill areas: a part of their pixels has only its own kind around."""
    padded = np.pad(values, 1, mode="edge")
    inner = np.ones(values.shape, np.bool_)
    for part in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        inner &= part == values
    kinds, counts = np.unique(values, return_counts=True)
    return [
        int(kind)
        for kind, count in zip(kinds, counts, strict=True)
        if np.count_nonzero(inner & (values == kind)) >= _AREA * count
    ]


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
