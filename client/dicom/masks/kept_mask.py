"""The mask file that was read last, kept: one file may hold the outlines of many slices.

In 2-D every slice of a series asks for the same file, and what pydicom converts when it is asked
for is converted once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset

from client.dicom.codec.compressed import Array
from client.dicom.codec.decode import decode
from client.dicom.reading.read import read_dataset


@contextmanager
def forgotten() -> Iterator[None]:
    """Keep no patient's mask beyond the block, or beyond the function that this decorates."""
    try:
        yield
    finally:
        _frames.cache_clear()
        _dataset.cache_clear()


def mask_dataset(path: Path) -> Dataset:
    """Return a mask file, parsed; nobody changes it. UnusableFile where it is no DICOM file."""
    return _dataset(path, *_stamp(path))


def mask_frames(path: Path) -> Array:
    """Return the frames of a DICOM SEG, (frames, rows, columns), which nobody can change."""
    return _frames(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=1)
def _dataset(path: Path, size: int, changed: int) -> Dataset:
    del size, changed  # another size or time is another file
    return read_dataset(path)


@functools.lru_cache(maxsize=1)
def _frames(path: Path, size: int, changed: int) -> Array:
    dataset = _dataset(path, size, changed)
    found = decode(dataset, dataset.file_meta.TransferSyntaxUID)
    found.setflags(write=False)
    return found
