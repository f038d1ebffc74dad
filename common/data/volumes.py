"""Volumes of their own extents, of which a network is given patches.

`Volumes` are KeptItems whose shape is that of a patch, so that whatever asks for a network's input
gets its size; a volume itself is read as a whole (`whole`) or by patches (`drawn_patches`), of
which only the voxels of the patch are read from the disk.

Where a patch lies is a function of numbers from 0 to less than 1 that the caller draws: from the
run's seed without privacy, from a patient's own secret numbers with it
(client/privacy/patient_sampling.py). Each patch takes as many numbers, whatever is drawn by them.

Public: Volumes, drawn_patches, structure_places, numbers_of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from common.data.kept_items import Items, KeptItems, item_shape, read_item, read_part
from common.data.sample import Patients

#: Voxels of each structure that are remembered beside a volume.
_PLACES = 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Volumes(KeptItems):
    """Images (channels, *extent) or label maps (*extent) in files, at least as large as a patch."""

    paths: tuple[Path, ...]
    extents: tuple[tuple[int, ...], ...]  # of each, in voxels
    channels: tuple[int, ...]  # (channels,) of an image, () of a map
    patch: tuple[int, ...]
    kind: torch.dtype
    #: Of each map: its structures' voxels (`structure_places`); () of images.
    places: tuple[Path, ...] = ()

    @property
    @override
    def shape(self) -> torch.Size:
        """Number of volumes, and the shape of a patch."""
        return torch.Size((len(self.paths), *self.channels, *self.patch))

    @property
    @override
    def dtype(self) -> torch.dtype:
        """Type of the values that are given."""
        return self.kind

    @override
    def at(self, items: Tensor) -> Volumes:
        """Return these volumes, which are not read yet."""
        chosen = items.tolist()
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            extents=tuple(self.extents[i] for i in chosen),
            places=tuple(self.places[i] for i in chosen) if self.places else (),
        )

    @override
    def pieces(self) -> Iterator[Tensor]:
        """Yield each volume as a whole."""
        return (self.whole(place)[None] for place in range(len(self)))

    @override
    def joined(self, others: tuple[KeptItems, ...]) -> KeptItems:
        """Return these and others' volumes as one."""
        all_of = [one for one in (self, *others) if isinstance(one, Volumes)]
        assert len(all_of) == 1 + len(others)  # noqa: S101 - of one configuration
        return replace(
            self,
            paths=tuple(path for one in all_of for path in one.paths),
            extents=tuple(extent for one in all_of for extent in one.extents),
            places=tuple(path for one in all_of for path in one.places),
        )

    def whole(self, place: int) -> Tensor:
        """Read one volume, (channels, *extent) or (*extent)."""
        return torch.from_numpy(read_item(self.paths[place]))

    def part(self, place: int, corner: tuple[int, ...]) -> Tensor:
        """Read one patch, (channels, *patch) or (*patch)."""
        sides = tuple(slice(c, c + p) for c, p in zip(corner, self.patch, strict=True))
        channels = tuple(slice(None) for _ in self.channels)
        return torch.from_numpy(read_part(self.paths[place], (*channels, *sides)))

    @override
    def _item(self, place: int) -> Tensor:
        message = f"{self.paths[place].name} is a volume, which is read whole or by patches."
        raise TypeError(message)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Patches(KeptItems):
    """Patches that were drawn, read when they are asked for."""

    volumes: Volumes
    item: Tensor  # (patches,) which volume
    corner: Tensor  # (patches, dimensions) where in it

    @property
    @override
    def shape(self) -> torch.Size:
        return torch.Size((len(self.item), *self.volumes.shape[1:]))

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self.volumes.dtype

    @override
    def at(self, items: Tensor) -> _Patches:
        return replace(self, item=self.item[items], corner=self.corner[items])

    @override
    def _item(self, place: int) -> Tensor:
        return self.volumes.part(int(self.item[place]), tuple(self.corner[place].tolist()))


def volumes_of(
    paths: tuple[Path, ...],
    channels: tuple[int, ...],
    patch: tuple[int, ...],
    kind: torch.dtype,
    places: tuple[Path, ...] = (),
) -> Volumes:
    """Return the volumes in these files, whose extents their headers say."""
    extents = tuple(item_shape(path)[len(channels) :] for path in paths)
    return Volumes(
        paths=paths, extents=extents, channels=channels, patch=patch, kind=kind, places=places
    )


def structure_places(labels: NDArray[np.uint8], seed: int) -> NDArray[np.int32]:
    """Return voxels of each structure, (voxels, 1 + dimensions): its number, and where it is.

    All of a small structure, and a draw of 10,000 by `seed` of a large one.
    """
    draw = np.random.default_rng(seed)
    found = [np.zeros((0, 1 + labels.ndim), np.int32)]
    for number in np.unique(labels[labels > 0]).tolist():
        flat = np.flatnonzero(labels.reshape(-1) == number)
        if len(flat) > _PLACES:
            flat = np.sort(draw.choice(flat, _PLACES, replace=False))
        where = np.stack(np.unravel_index(flat, labels.shape), axis=1).astype(np.int32)
        found.append(np.column_stack([np.full(len(where), number, np.int32), where]))
    return np.concatenate(found)


def numbers_of(dimensions: int) -> int:
    """Return how many numbers the place of a patch takes."""
    return 4 + dimensions


def drawn_patches(
    patients: Patients, owner: Tensor, drawn: Tensor, foreground: float = 0.0
) -> Patients:
    """Return patches as items: of the patients at `owner`, (patches,), one a row of `drawn`.

    Owners must rise; patients keep their positions. drawn is (patches, numbers_of(dimensions)),
    each from 0 to less than 1. A patch is of any of its patient's volumes; with chance `foreground`
    around a voxel of one of the structures that are there, each alike, else anywhere.
    """
    image, target = patients.image, patients.target
    assert isinstance(image, Volumes)  # noqa: S101 - whoever calls asked
    assert isinstance(target, Volumes)  # noqa: S101 - as its images
    counts = torch.bincount(patients.patient, minlength=len(patients))
    first = counts.cumsum(0) - counts
    own = counts[owner]
    item = first[owner] + (drawn[:, 0] * own).long().minimum(own - 1)
    patch = torch.tensor(image.patch)
    room = torch.tensor([image.extents[i] for i in item.tolist()]).reshape(-1, len(patch)) - patch
    corner = (drawn[:, 4:] * (room + 1)).long().minimum(room)
    for row in torch.nonzero(drawn[:, 1] < foreground).flatten().tolist():
        voxel = _voxel(read_item(target.places[int(item[row])]), *drawn[row, 2:4].tolist())
        if voxel is not None:
            around = torch.from_numpy(voxel.astype(np.int64)) - patch // 2
            corner[row] = torch.minimum(around.clamp_min(0), room[row])
    return Patients(
        image=_Patches(volumes=image, item=item, corner=corner),
        table=patients.table[item],
        target=_Patches(volumes=target, item=item, corner=corner),
        patient=owner,
        pseudonyms=patients.pseudonyms,
    )


def _voxel(places: NDArray[np.generic], which: float, where: float) -> NDArray[np.generic] | None:
    """Return a voxel of a structure: the structure is drawn first, then a voxel of it."""
    numbers = np.unique(places[:, 0])
    if len(numbers) == 0:
        return None
    own = np.flatnonzero(places[:, 0] == numbers[int(which * len(numbers))])
    return places[own[int(where * len(own))], 1:]


def are_volumes(items: Items) -> bool:
    """Return whether a network is given patches of these."""
    return isinstance(items, Volumes)
