"""Items that lie in files, one each, and are read when they are asked for.

A cohort of any size trains in the memory of one batch: `KeptItems` stands where a tensor of all
items would, is indexed by items like one, and gives tensors. Wherever items lie, and however many
there are, what is read is the same to the bit.

A file is a NumPy array (.npy) with a seal behind it: mark, CRC-32, and the line that makes values
of 16-bit codes: value = low + code * step, so that the lowest value (the background) stays exact
and any other moves by at most step / 2 = range / 131070. float16 would move values near 1 by
1 / 4096. Which of the two an item is kept in follows from the run's configuration alone
(`Images.kept_bits`): if it followed from the cohort, one patient more would move all others.

Public: KeptItems, ItemFiles, Items, ItemGone, write_item, is_whole, joined_items, in_memory, taken,
    pieces, held.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
import uuid
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from common.platform.errors import CohortError

#: Behind an array: a mark, the CRC-32 of its bytes, low and step of its codes (0, 0: no codes).
_SEAL = struct.Struct("<4sIff")
_MARK = b"WRI1"
_CODES = np.iinfo(np.uint16).max
#: Items of a cohort up to this size are read once and stay in memory.
IN_MEMORY_BYTES = 1 << 28
#: Items that are read at once where all are looked at.
_PIECE = 64


class ItemGone(CohortError):
    """A prepared item's file went away while it was used; whoever reads on begins anew."""


class KeptItems(ABC):
    """Items (items, ...) that are read when they are asked for; indexed by items alone."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Number of items, and the shape of each."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the values that are given."""

    @abstractmethod
    def at(self, items: Tensor) -> KeptItems:
        """Return these items, which are not read yet."""

    @abstractmethod
    def _item(self, place: int) -> Tensor:
        """Read one item."""

    def pieces(self) -> Iterator[Tensor]:
        """Yield all items in their order, as many at once as may be in memory."""
        for start in range(0, len(self), _PIECE):
            yield self[start : start + _PIECE]

    def joined(self, others: tuple[KeptItems, ...]) -> KeptItems:
        """Return these items and others as one."""
        parts = (self, *others)
        return _JoinedItems(
            parts=parts,
            part=torch.cat([torch.full((len(one),), i) for i, one in enumerate(parts)]),
            place=torch.cat([torch.arange(len(one)) for one in parts]),
        )

    def __len__(self) -> int:
        """Return the number of items."""
        return self.shape[0]

    def __getitem__(self, items: Tensor | slice | int) -> Tensor:
        """Read items: (*items, ...) for positions of any shape, as a tensor gives them."""
        places = torch.arange(len(self))[items]
        found = torch.empty((places.numel(), *self.shape[1:]), dtype=self.dtype)
        for row, place in enumerate(places.flatten().tolist()):
            found[row] = self._item(place)
        return found.reshape(*places.shape, *self.shape[1:])


#: In memory, or in files.
Items = Tensor | KeptItems


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemFiles(KeptItems):
    """Items of one shape, one file each."""

    folder: Path
    names: tuple[str, ...]  # files below the folder
    item: torch.Size  # shape of each
    kind: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """Number of items, and the shape of each."""
        return torch.Size((len(self.names), *self.item))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values that are given."""
        return self.kind

    def at(self, items: Tensor) -> ItemFiles:
        """Return these items, which are not read yet."""
        names = tuple(self.names[i] for i in items.tolist())
        return ItemFiles(folder=self.folder, names=names, item=self.item, kind=self.kind)

    def _item(self, place: int) -> Tensor:
        return torch.from_numpy(read_item(self.folder / self.names[place]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _JoinedItems(KeptItems):
    """Several cohorts' items as one."""

    parts: tuple[KeptItems, ...]
    part: Tensor  # (items,) which part an item is of
    place: Tensor  # (items,) where in it

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.part), *self.parts[0].shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    def at(self, items: Tensor) -> _JoinedItems:
        return _JoinedItems(parts=self.parts, part=self.part[items], place=self.place[items])

    def _item(self, place: int) -> Tensor:
        return self.parts[int(self.part[place])][int(self.place[place])]


@dataclass(frozen=True, eq=False)
class _InMemory(KeptItems):
    """Items in memory beside items that are not."""

    values: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def at(self, items: Tensor) -> _InMemory:
        return _InMemory(self.values[items])

    def _item(self, place: int) -> Tensor:
        return self.values[place]


def joined_items(parts: Sequence[Items]) -> Items:
    """Return several cohorts' items as one: in memory where all are."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    kept = [_InMemory(part) if isinstance(part, Tensor) else part for part in parts if len(part)]
    return kept[0].joined(tuple(kept[1:])) if kept else parts[0]


def taken(items: Items, chosen: Tensor) -> Items:
    """Return these items: a copy of what is in memory, and nothing read of what is not."""
    return items[chosen] if isinstance(items, Tensor) else items.at(chosen)


def pieces(items: Items) -> Iterator[Tensor]:
    """Return all items in their order, as many at once as may be in memory."""
    return iter((items,)) if isinstance(items, Tensor) else items.pieces()


def held(items: Items) -> Items:
    """Return items in memory where they are few enough for it; a matter of speed alone."""
    if not isinstance(items, ItemFiles):
        return items
    size = math.prod(items.shape) * items.dtype.itemsize
    return in_memory(items) if size <= IN_MEMORY_BYTES else items


def in_memory(items: Items) -> Tensor:
    """Return all items in memory."""
    return items if isinstance(items, Tensor) else items[:]


# --- the file ------------------------------------------------------------------------------


def write_item(path: Path, array: NDArray[np.generic], *, bits: int = 32) -> None:
    """Write an item; floats as 16-bit codes where `bits` says so. It is whole or not there.

    Several processes may write the same one at once. It is not made durable: its seal tells a
    file that a crash of the machine left half written, and it is made again then.
    """
    array = np.asarray(array, order="C")
    codes, low, step = _coded(array) if bits == 16 else (array, 0.0, 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, codes, allow_pickle=False)
            file.write(_SEAL.pack(_MARK, _checksum(codes), low, step))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _coded(array: NDArray[np.generic]) -> tuple[NDArray[np.generic], float, float]:
    """Return codes, low and step; an even item has step 0 and is kept as it is."""
    values = array.astype(np.float64)
    low = np.float32(values.min())
    step = np.float32((values.max() - float(low)) / _CODES)
    if not step > 0:
        return array, 0.0, 0.0
    codes = np.rint((values - float(low)) / float(step)).clip(0, _CODES).astype(np.uint16)
    return codes, float(low), float(step)


def _checksum(array: NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def is_whole(path: Path) -> bool:
    """Return whether a file is there as it was written; one that is not is removed."""
    try:
        codes, seal = _opened(path, _all)
        if seal[1] == _checksum(codes):
            return True
    except FileNotFoundError:
        return False
    except (OSError, ValueError, EOFError):
        pass
    path.unlink(missing_ok=True)
    return False


def read_item(path: Path) -> NDArray[np.generic]:
    """Return an item's values; ItemGone where its file is not there any more."""
    return _values(path, _all)


def item_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of an item; ItemGone where its file is not there any more."""

    def shape_of(
        _file: BinaryIO, _dtype: np.dtype[np.generic], shape: tuple[int, ...]
    ) -> NDArray[np.generic]:
        return np.array(shape)

    return tuple(_read(path, shape_of)[0].tolist())


def read_part(path: Path, part: tuple[slice, ...]) -> NDArray[np.generic]:
    """Return a part of an item's values, of two axes or more; little else is read.

    Whole rows are read: mapped into memory, a part takes its pages and all that lie around them.
    """

    def cut(
        file: BinaryIO, dtype: np.dtype[np.generic], shape: tuple[int, ...]
    ) -> NDArray[np.generic]:
        start, (_, width) = file.tell(), shape[-2:]
        places = [range(*one.indices(side)) for one, side in zip(part, shape, strict=True)]
        *outer, rows, _ = places
        found = np.empty([len(place) for place in places], dtype)
        for number, plane in enumerate(itertools.product(*outer)):
            first = np.ravel_multi_index((*plane, rows.start, 0), shape)
            file.seek(start + int(first) * dtype.itemsize)
            block = np.fromfile(file, dtype, len(rows) * width).reshape(len(rows), width)
            found.reshape(-1, *found.shape[-2:])[number] = block[:, part[-1]]
        return found

    return _values(path, cut)


_Seal = tuple[bytes, int, float, float]
_Reader = Callable[[BinaryIO, np.dtype[np.generic], tuple[int, ...]], NDArray[np.generic]]


def _values(path: Path, read: _Reader) -> NDArray[np.generic]:
    codes, (_, _, low, step) = _read(path, read)
    if not step:
        return codes
    values = codes.astype(np.float32)
    values *= np.float32(step)
    values += np.float32(low)
    return values


def _read(path: Path, read: _Reader) -> tuple[NDArray[np.generic], _Seal]:
    try:
        return _opened(path, read)
    except (OSError, ValueError) as error:
        message = (
            f"The prepared image {path} cannot be read any more ({error}): a patient was "
            "withdrawn, or the cache was deleted. Ask again: it is made anew."
        )
        raise ItemGone(message) from error


def _all(
    file: BinaryIO, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    count = int(np.prod(shape))
    found = np.fromfile(file, dtype, count)
    if len(found) != count:
        message = f"{len(found)} values, expected {count}"
        raise ValueError(message)
    return found.reshape(shape)


def _opened(path: Path, read: _Reader) -> tuple[NDArray[np.generic], _Seal]:
    """Return what `read` takes of the array, and the seal."""
    with path.open("rb") as file:
        file.seek(-_SEAL.size, os.SEEK_END)
        seal = _SEAL.unpack(file.read())
        if seal[0] != _MARK:
            message = "it has no seal"
            raise ValueError(message)
        file.seek(0)
        if npy.read_magic(file) != (1, 0):
            message = "not version 1.0 of .npy"
            raise ValueError(message)
        shape, _, dtype = npy.read_array_header_1_0(file)
        return read(file, dtype, shape), seal
