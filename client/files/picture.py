"""PNG, JPEG and TIFF as one frame of grey values or colours, exactly as the file holds them.

    1, 8 and 16 bits of grey, whole numbers and floats of 32 bits    as stored
    a palette, 8 bits of red, green and blue                         colours
    alpha, or a colour that is transparent                           left off where all is opaque
    EXIF's orientation                                               turned

Whatever else a picture may be is PICTURE_UNCLEAR, because a library would read it in one of
several ways: colours of 16 bits (cut to 8), CMYK and Lab (by a profile), what shines through,
several pictures in one file, TIFFs with signed bytes, white at 0 or numbers from 2^31 on.

Public: picture_grid, picture_pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.dicom.reading.rescale import Pixels
from client.dicom.reasons import Reason, UnusableFile
from client.files.grid import FileGrid

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "TIFF")
#: Pillow's modes that are one number a pixel, and its bits; of PNG, 16 bits of grey may be I.
_GREY = {"1": 8, "L": 8, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
_COLOURS = frozenset({"RGB", "P"})
#: Modes with alpha, and what they are without.
_ALPHA = {"LA": "L", "PA": "RGB", "RGBA": "RGB"}
#: EXIF and TIFF 6.0: how a picture is turned; from 5 on its rows are columns.
_ORIENTATION, _SWAPPED = 0x0112, 5
#: TIFF 6.0: bits a sample, what 0 means, the kind of number.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
#: Bytes of a PNG's header that hold bits a sample and the type of colour (PNG 11.2.1).
_PNG_BITS, _PNG_COLOUR = 24, 25
#: What Pillow's ValueError says of text or a profile that unpacks to more than it reads.
_TOO_LARGE = ("data too large", "too much memory")
#: Resolutions down and across that differ by less are one.
_SAME_SIDE = 0.01


def picture_grid(path: Path) -> FileGrid:
    """Return the size of a picture, of which no pixel is read."""
    with _opened(path) as picture:
        columns, rows = picture.size
        aspect = _aspect(picture)
        if _orientation(picture) >= _SWAPPED:
            rows, columns, aspect = columns, rows, 1 / aspect
        grey = picture.mode in _GREY or picture.mode == "LA"
        return FileGrid(
            rows=rows,
            columns=columns,
            samples=1 if grey else 3,
            bits=_GREY.get(picture.mode, 8),
            aspect=aspect,
        )


def picture_pixels(path: Path) -> Pixels:
    """Return a picture's values, (1, rows, columns[, 3])."""
    from PIL import ImageOps

    with _opened(path) as picture:
        try:
            picture.load()  # a TIFF is turned by that
            upright = picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)
            values = np.asarray(_opaque(upright))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            # What Pillow raises on broken files.
            raise _broken(error) from error
        if picture.format == "TIFF" and picture.mode == "I" and values.min(initial=0) < 0:
            _check_sign(picture)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    stored = np.ascontiguousarray(values, values.dtype.newbyteorder("="))[None]
    return Pixels(stored=stored, slope=np.ones(1), intercept=np.zeros(1))


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open a picture that can be read in one way only; UnusableFile says why it cannot."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            _check(picture, path)
            yield picture
    except Image.DecompressionBombError as error:
        raise UnusableFile(Reason.TOO_LARGE, str(error)[:120]) from error
    except UnidentifiedImageError as error:
        detail = "expected NIfTI (.nii, .nii.gz), PNG, JPEG or TIFF"
        raise UnusableFile(Reason.FILE_UNKNOWN, detail) from error
    except (SyntaxError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's
        raise _broken(error) from error


def _broken(error: Exception) -> UnusableFile:
    """Return what is wrong with a picture of which Pillow raised this."""
    detail = f"{type(error).__name__}: {error}"[:120]
    large = isinstance(error, ValueError) and any(said in detail.lower() for said in _TOO_LARGE)
    return UnusableFile(Reason.TOO_LARGE if large else Reason.DECODE_ERROR, detail)


def _check(picture: Image, path: Path) -> None:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        _refuse(f"{frames} pictures in one {picture.format}; save each as a file of its own")
    if picture.mode not in {*_GREY, *_COLOURS, *_ALPHA}:
        _refuse(f"colours as {picture.mode}; save it as RGB or grey values")
    if picture.format == "PNG":
        _check_png(path)
    if picture.format == "TIFF":
        _check_tiff(picture)


def _check_png(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_PNG_COLOUR + 1)
    if head[_PNG_BITS] == 16 and head[_PNG_COLOUR]:
        _refuse("colours or alpha of 16 bits; save it as grey values of 16 bits, or with 8")


def _check_tiff(picture: Image) -> None:
    tags = picture.tag_v2  # type: ignore[attr-defined]  # of TIFF alone
    bits = max(tags.get(_BITS, (1,)))
    if bits > 8 and picture.mode not in _GREY:
        _refuse(f"colours of {bits} bits; save it with 8")
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        _refuse(f"{bits} bits with white at 0; save it with black at 0")
    if bits <= 8 and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        _refuse("signed values of 8 bits; save it without a sign")
    if _orientation(picture) >= _SWAPPED:
        _refuse(f"rows that are columns (Orientation {_orientation(picture)}); save it upright")


def _check_sign(picture: Image) -> None:
    """Refuse numbers below 0 where the file holds none: Pillow reads 32 bits as with a sign."""
    tags = picture.tag_v2  # type: ignore[attr-defined]  # of TIFF alone
    if _SIGNED not in tags.get(_SAMPLE_FORMAT, ()):
        _refuse(f"numbers of {1 << 31} and more; save them as float32")


def _orientation(picture: Image) -> int:
    found = picture.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def _opaque(picture: Image) -> Image:
    """Return grey values or colours without alpha; PICTURE_UNCLEAR where something is clear."""
    clear = "transparency" in picture.info
    if clear and picture.mode in _GREY and picture.mode != "L":
        _refuse(f"a transparent value among {_GREY[picture.mode]} bits of grey; save it without")
    with_alpha = "LA" if picture.mode == "L" else "RGBA"
    if clear or picture.mode in _ALPHA:
        whole = picture.convert(with_alpha) if clear or picture.mode == "PA" else picture
        lowest, _ = whole.getchannel("A").getextrema()
        if lowest != 255:
            _refuse("parts of it are transparent; save it without alpha")
        return whole.convert(_ALPHA[whole.mode])
    return picture.convert("RGB") if picture.mode == "P" else picture


def _aspect(picture: Image) -> float:
    """Return height of a pixel over its width, by the resolution that the file says."""
    across, down = picture.info.get("jfif_density" if "jfif" in picture.info else "dpi", (1, 1))
    if not (0 < across < 1e6 and 0 < down < 1e6):
        return 1.0
    found = float(across) / float(down)
    return found if abs(found - 1) > _SAME_SIDE else 1.0


def _refuse(detail: str) -> None:
    raise UnusableFile(Reason.PICTURE_UNCLEAR, detail)
