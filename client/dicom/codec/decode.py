"""Decoding of pixel data: imagecodecs where it is exact, pydicom elsewhere."""

from __future__ import annotations

from copy import copy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from client.dicom.codec.compressed import (
    BY_IMAGECODECS,
    JPEG,
    Array,
    Format,
    check_frame,
    decode_frame,
    in_stored_bits,
)
from client.dicom.quiet import quiet
from client.dicom.reasons import Reason, UnusableFile

#: Bytes of one object's pixels, uncompressed, beyond which it is refused before memory is taken.
LARGEST_BYTES = 1 << 30

#: Decoded by pydicom with pillow, openjpeg and the RLE plug-in.
_PYDICOM = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
        "1.2.840.10008.1.2.4.203",
        RLELossless,
    }
)
NATIVE = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", ExplicitVRBigEndian}
)
#: Every transfer syntax that can be read.
SYNTAXES = NATIVE | BY_IMAGECODECS | _PYDICOM


def frames_of(dataset: Dataset) -> int:
    """Return the number of frames; an absent or empty value means one."""
    return int(dataset.get("NumberOfFrames") or 1)


def decode(dataset: Dataset, syntax: UID) -> Array:
    """Return (frames, rows, columns[, 3]): grey or RGB, integers as stored or floats."""
    with quiet():
        if syntax in NATIVE:
            _check_length(dataset)
            found = _native(dataset, syntax)
        else:
            found = _compressed(dataset, syntax)
        return _shaped(found, dataset)


def format_of(dataset: Dataset) -> Format:
    """Return what the header says of a frame."""
    stored = int(dataset.BitsStored)
    high = dataset.get("HighBit")
    return Format(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=int(dataset.SamplesPerPixel),
        photometric=str(dataset.PhotometricInterpretation),
        allocated=int(dataset.BitsAllocated),
        stored=stored,
        high=stored - 1 if high is None else int(high),
        signed=int(dataset.PixelRepresentation) == 1,
    )


def _native(dataset: Dataset, syntax: UID) -> Array:
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset and dataset.BitsAllocated > 8:
        wide = int(dataset.BitsAllocated) > 16
        if wide or dataset["PixelData"].VR != "OW":
            # PS3.5 A.3 swaps words of 16 bits; writers and readers differ on everything else.
            detail = f"{dataset.BitsAllocated} bits as {dataset['PixelData'].VR} in big endian"
            raise UnusableFile(Reason.UNSUPPORTED_TS, detail)
    if "PixelData" not in dataset or dataset.BitsAllocated == 1:
        found = pixel_array(dataset)
        return found.astype(found.dtype.newbyteorder("="), copy=False)
    form = format_of(dataset)
    found = pixel_array(_whole_words(dataset, form))
    return in_stored_bits(
        found.astype(found.dtype.newbyteorder("="), copy=False), form.stored, form.high
    )


def _whole_words(dataset: Dataset, form: Format) -> Dataset:
    """Return a dataset of which pydicom cuts off no bits where they are not the lowest ones."""
    if form.high == form.stored - 1:
        return dataset
    found = copy(dataset)
    found.BitsStored, found.HighBit = form.allocated, form.allocated - 1
    return found


def _compressed(dataset: Dataset, syntax: UID) -> Array:
    if syntax not in SYNTAXES:
        raise UnusableFile(Reason.UNSUPPORTED_TS, f"{syntax.name}")
    if not dataset.PixelData:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, "no pixel data")
    form, frames = format_of(dataset), _frames(dataset)
    if form.high != form.stored - 1 and syntax != RLELossless:
        # Encoders differ on whether they move the bits down.
        detail = f"HighBit {form.high}, BitsStored {form.stored} in {syntax.name}"
        raise UnusableFile(Reason.DECODE_ERROR, detail)
    if len(frames) < frames_of(dataset):
        detail = f"{len(frames)} of {frames_of(dataset)} frames"
        raise UnusableFile(Reason.TRUNCATED_PIXELS, detail)
    for frame in frames:
        check_frame(frame, syntax, form)
    if syntax in BY_IMAGECODECS:
        decoded = np.stack([decode_frame(frame, syntax, form) for frame in frames])
        return as_rgb(decoded, syntax, form)
    if syntax == RLELossless:
        return in_stored_bits(_unrolled(_whole_words(dataset, form)), form.stored, form.high)
    return pixel_array(dataset)


def _unrolled(dataset: Dataset) -> Array:
    """Return frames from RLE, by pylibjpeg: 3.5 times as quick as pydicom's own."""
    try:
        return pixel_array(dataset, decoding_plugin="pylibjpeg")
    except Exception:
        raise
    except BaseException as error:
        # On a broken segment its Rust code panics, and that is no Exception in Python.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise UnusableFile(Reason.DECODE_ERROR, f"RLE: {error}"[:120]) from error


def as_rgb(found: Array, syntax: str, form: Format) -> Array:
    """Return colours as RGB; lossy JPEG was turned by its decoder, the others were not."""
    if not form.photometric.startswith("YBR") or syntax in JPEG:
        return found
    if found.dtype.itemsize > 1:
        raise UnusableFile(Reason.DECODE_ERROR, f"{form.photometric} of {form.allocated} bits")
    return convert_color_space(found, "YBR_FULL", "RGB", per_frame=True)


def _shaped(found: Array, dataset: Dataset) -> Array:
    frames, color = frames_of(dataset), int(dataset.SamplesPerPixel) > 1
    shape = (frames, int(dataset.Rows), int(dataset.Columns), *((3,) if color else ()))
    if found.size != np.prod(shape):
        raise UnusableFile(Reason.DECODE_ERROR, f"decoded {found.shape}, header {shape}")
    found = found.reshape(shape)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        _trim_palettes(dataset)
        found = np.stack([_colored(frame, dataset) for frame in found])
    return np.ascontiguousarray(found)


def _trim_palettes(dataset: Dataset) -> None:
    """Take the padding from palettes of an odd number of bytes; pydicom counts it as entries."""
    for color in ("Red", "Green", "Blue"):
        data = dataset.get(f"{color}PaletteColorLookupTableData")
        descriptor = dataset.get(f"{color}PaletteColorLookupTableDescriptor")
        if data and descriptor and len(data) == int(descriptor[0]) + 1:
            setattr(dataset, f"{color}PaletteColorLookupTableData", data[:-1])


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


def _frames(dataset: Dataset) -> list[bytes]:
    try:
        return list(generate_frames(dataset.PixelData, number_of_frames=frames_of(dataset)))
    except ValueError as error:
        raise UnusableFile(Reason.TRUNCATED_PIXELS, str(error)[:120]) from error
