"""Stored values as dcmtk and gdcm decode them: readers that share no code with ours.

dcmtk's tools turn a file into an uncompressed one, gdcm where dcmtk has no decoder (JPEG 2000) or
gives up. The bytes of that file's pixels are read here by hand; of its header pydicom reads what is
plain: rows, columns, bits.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.quiet import quiet
from tests.peers import program

JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
LOSSY = (*JPEG[:4], JPEG_LS[1], JPEG_2000[1])
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


@dataclass(frozen=True)
class Decoded:
    """What a peer made of a file."""

    values: NDArray[np.int64]  # (frames, rows, columns[, 3]): stored, or RGB
    by: str


def commands_for(path: Path, syntax: str, target: Path) -> list[list[str]]:
    """Return the peers' commands that write the file uncompressed, in the order of trial."""
    ends = [str(path), str(target)]
    gdcm = ["gdcmconv", "--raw", *ends]
    if syntax in JPEG:
        return [["dcmdjpeg", *ends], gdcm]
    if syntax in JPEG_LS:
        return [["dcmdjpls", *ends], gdcm]
    if syntax in JPEG_2000:
        return [gdcm]
    if syntax == "1.2.840.10008.1.2.5":
        return [["dcmdrle", *ends], gdcm]
    return [["dcmconv", "+te", *ends], gdcm]


def decoded_by_peer(path: Path, folder: Path) -> Decoded | None:
    """Return the stored values that a peer finds, or None where none decodes the file."""
    target = folder / "peer.dcm"
    with quiet():
        header = dcmread(path, force=True, stop_before_pixels=True)
        syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
        for command in commands_for(path, syntax, target):
            target.unlink(missing_ok=True)
            ended = subprocess.run(
                [program(command[0]), *command[1:]], capture_output=True, check=False, timeout=60
            )
            if ended.returncode == 0 and target.exists():
                dataset = dcmread(target)
                if _is_plain(dataset):
                    return Decoded(_coloured(_values(dataset), dataset), command[0])
    return None


def _is_plain(dataset: Dataset) -> bool:
    """Return whether the file holds whole pixels of whole bytes, uncompressed."""
    if dataset.file_meta.get("TransferSyntaxUID") not in _PLAIN or "PixelData" not in dataset:
        return False
    frames, bits = int(dataset.get("NumberOfFrames") or 1), int(dataset.BitsAllocated)
    pixels = frames * int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    return bits > 1 and len(dataset.PixelData) >= pixels * bits // 8


def _values(dataset: Dataset) -> NDArray[np.int64]:
    """Return (frames, rows, columns[, 3]) from the bytes of an uncompressed file (PS3.5 8.1.1)."""
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    bits, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    count = frames * int(dataset.Rows) * int(dataset.Columns) * samples
    raw = np.frombuffer(dataset.PixelData, f"<u{bits // 8}", count).astype(np.int64)
    # What a lossy decoder overshoots stands above the stored bits and is kept.
    values = raw >> (high + 1 - stored)
    if dataset.PixelRepresentation:
        values &= (1 << stored) - 1
        values = (values ^ (1 << (stored - 1))) - (1 << (stored - 1))
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    if samples == 1:
        return values.reshape(shape)
    if int(dataset.get("PlanarConfiguration") or 0):
        return np.moveaxis(values.reshape(frames, samples, *shape[1:]), 1, -1)
    return values.reshape(*shape, samples)


def _coloured(values: NDArray[np.int64], dataset: Dataset) -> NDArray[np.int64]:
    """Return colours as RGB of 8 bits: from YBR by Rec. 601 (PS3.3 C.7.6.3.1.2), from palettes."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric.startswith("YBR"):
        y, blue, red = (values[..., n].astype(float) for n in range(3))
        channels = (
            y + 1.402 * (red - 128),
            y - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            y + 1.772 * (blue - 128),
        )
        return np.stack(channels, -1).round().clip(0, 255).astype(np.int64)
    if photometric == "PALETTE COLOR":
        return np.stack([_looked_up(values, dataset, c) for c in ("Red", "Green", "Blue")], -1)
    return values


def _looked_up(values: NDArray[np.int64], dataset: Dataset, color: str) -> NDArray[np.int64]:
    entries, first, bits = dataset[f"{color}PaletteColorLookupTableDescriptor"].value
    data = bytes(dataset[f"{color}PaletteColorLookupTableData"].value)
    count = int(entries) or 65536
    wide = bits == 16 or len(data) >= 2 * count
    table = np.frombuffer(data, "<u2" if wide else "u1", count).astype(np.int64)
    found: NDArray[np.int64] = table[(values - int(first)).clip(0, count - 1)]
    return found >> 8 if table.max() > 255 else found
