"""Compressed or native pixel data to arrays: imagecodecs where it is exact, pydicom elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from client.dicom.codestream import is_whole, shape_of
from client.dicom.quiet import quiet
from client.dicom.reasons import Reason, UnusableFile

Array = NDArray[np.number]

#: Bytes of one object's pixels, uncompressed, beyond which it is refused before memory is taken.
LARGEST_BYTES = 1 << 30

_JPEG = frozenset({
    "1.2.840.10008.1.2.4.51",  # Extended, 8 and 12 bits
    "1.2.840.10008.1.2.4.53",  # Spectral selection; retired
    "1.2.840.10008.1.2.4.55",  # Full progression; retired
})  # fmt: skip
_JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
#: Decoded by pydicom with pillow, openjpeg and the RLE plug-in.
_PYDICOM = frozenset({
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203", RLELossless,
})  # fmt: skip
NATIVE = frozenset({
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", ExplicitVRBigEndian,
})  # fmt: skip
#: Every transfer syntax that can be read.
SYNTAXES = NATIVE | _JPEG | _JPEG_LOSSLESS | _JPEG_LS | _PYDICOM


def frames_of(dataset: Dataset) -> int:
    """Return the number of frames; an absent or empty value means one."""
    return int(dataset.get("NumberOfFrames") or 1)


def decode(dataset: Dataset, syntax: UID) -> Array:
    """Return (frames, rows, columns[, 3]): grey or RGB, integers as stored or floats."""
    with quiet():
        if syntax in NATIVE:
            _check_length(dataset)
        else:
            _check_frames(dataset, syntax)
        return _shaped(_decoded(dataset, syntax), dataset)


def _decoded(dataset: Dataset, syntax: UID) -> Array:
    if syntax in _JPEG | _JPEG_LOSSLESS | _JPEG_LS:
        return _by_imagecodecs(dataset, syntax)
    # pylibjpeg's RLE is 3.5 times as quick as pydicom's own.
    plugin = "pylibjpeg" if syntax == RLELossless else ""
    found = pixel_array(dataset, decoding_plugin=plugin)
    if syntax in NATIVE | {RLELossless} and "PixelData" in dataset and dataset.BitsAllocated > 1:
        stored = int(dataset.BitsStored)
        high = dataset.get("HighBit")
        return in_stored_bits(found, stored, stored - 1 if high is None else int(high))
    return found


def _shaped(found: Array, dataset: Dataset) -> Array:
    frames, color = frames_of(dataset), int(dataset.SamplesPerPixel) > 1
    shape = (frames, int(dataset.Rows), int(dataset.Columns), *((3,) if color else ()))
    if found.size != np.prod(shape):
        raise UnusableFile(Reason.DECODE_ERROR, f"decoded {found.shape}, header {shape}")
    found = found.reshape(shape)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        found = np.stack([_colored(frame, dataset) for frame in found])
    return np.ascontiguousarray(found)


def _colored(frame: Array, dataset: Dataset) -> Array:
    """Return a frame through its palette, in the 0 to 255 of every other colour image.

    Palettes hold 8 or 16 bits (PS3.3 C.7.6.3.1.5); some that say 16 fill the lower 8 alone.
    """
    found: Array = apply_color_lut(frame, dataset)
    if found.dtype == np.uint16 and found.max() > 255:
        return (found // 256).astype(np.uint8)
    return found.astype(np.uint8) if found.dtype == np.uint16 else found


def _check_length(dataset: Dataset) -> None:
    """Compare the length of native pixel data with what the header promises (PS3.5 8.1.1)."""
    bits = int(dataset.BitsAllocated)
    samples = int(dataset.SamplesPerPixel)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        samples = 2
    pixels = frames_of(dataset) * int(dataset.Rows) * int(dataset.Columns) * samples
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if name in dataset:
            held, expected = len(dataset[name].value or b""), (pixels * bits + 7) // 8
            if held < expected:
                raise UnusableFile(Reason.TRUNCATED_PIXELS, f"{held} of {expected} bytes")


def _check_frames(dataset: Dataset, syntax: UID) -> None:
    """Refuse what no decoder knows, and frames whose own size is not the header's."""
    if syntax not in _JPEG | _JPEG_LOSSLESS | _JPEG_LS | _PYDICOM:
        raise UnusableFile(Reason.UNSUPPORTED_TS, f"{syntax.name}")
    if not dataset.PixelData:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "no pixel data")
    wanted = int(dataset.Rows), int(dataset.Columns)
    count = 0
    for frame in _frames(dataset):
        found = shape_of(frame)
        if found is not None and found[:2] != wanted:
            raise UnusableFile(Reason.DECODE_ERROR, f"frame is {found[:2]}, header says {wanted}")
        if syntax in _JPEG | _JPEG_LOSSLESS | _JPEG_LS and not is_whole(frame):
            # These decoders would fill up the rest in silence.
            raise UnusableFile(Reason.TRUNCATED_PIXELS, f"frame {count + 1} has no end")
        count += 1
    if count < frames_of(dataset):
        raise UnusableFile(Reason.TRUNCATED_PIXELS, f"{count} of {frames_of(dataset)} frames")


def _frames(dataset: Dataset) -> list[bytes]:
    try:
        return list(generate_frames(dataset.PixelData, number_of_frames=frames_of(dataset)))
    except ValueError as error:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, str(error)[:120]) from error


def _by_imagecodecs(dataset: Dataset, syntax: UID) -> Array:
    import imagecodecs

    if syntax in _JPEG_LS:
        decoder = imagecodecs.jpegls_decode
    else:
        decoder = imagecodecs.ljpeg_decode if syntax in _JPEG_LOSSLESS else imagecodecs.jpeg_decode
    found: NDArray[np.integer] = np.stack([decoder(frame) for frame in _frames(dataset)])
    if int(dataset.PixelRepresentation) == 1:
        signed = found.view(np.int16 if found.dtype.itemsize == 2 else np.int8)
        return in_stored_bits(signed, int(dataset.BitsStored), int(dataset.BitsStored) - 1)
    # Lossy JPEG is turned to RGB by its decoder; the others hand out what is stored.
    if str(dataset.PhotometricInterpretation).startswith("YBR") and syntax not in _JPEG:
        return convert_color_space(found, "YBR_FULL", "RGB", per_frame=True)
    return found


def in_stored_bits(values: NDArray[np.generic], stored: int, high: int) -> Array:
    """Return the values that stand in so many bits below and with the high bit (PS3.5 8.1.1).

    What stands above or below is no part of the image: old scanners kept overlays there. An
    array of the same type comes back; numbers in two's complement keep their sign.
    """
    allocated = values.dtype.itemsize * 8
    if not 0 < stored <= high + 1 <= allocated:
        raise UnusableFile(Reason.BAD_VR, f"BitsStored {stored}, HighBit {high} of {allocated}")
    top, low = allocated - 1 - high, allocated - stored
    if values.dtype.kind == "u" and top == low:
        return np.asarray(np.bitwise_and(values, (1 << stored) - 1)) if low else np.asarray(values)
    return np.asarray(np.right_shift(np.left_shift(values, top), low))
