from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.kept_items import joined_items, write_item
from common.data.sample import Patients, take
from common.data.volumes import Volumes, drawn_patches, numbers_of, structure_places, volumes_of
from tests.privacy.made_up import volumes_of_patients

PATCH = (4, 6, 5)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Patients:
    return volumes_of_patients(tmp_path_factory.mktemp("volumes"), (1, 3, 2), PATCH)


def whole(patients: Patients) -> tuple[Volumes, Volumes]:
    image, target = patients.image, patients.target
    assert isinstance(image, Volumes)
    assert isinstance(target, Volumes)
    return image, target


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), foreground=st.sampled_from([0.0, 0.4, 1.0]))
def test_patches_are_parts_of_their_own_patients_volumes(
    patients: Patients, seed: int, foreground: float
) -> None:
    owner = torch.tensor([0, 1, 1, 2, 2])
    draw = torch.rand((5, numbers_of(3)), generator=torch.Generator().manual_seed(seed))
    found = drawn_patches(patients, owner, draw, foreground)
    batch = take(found, torch.arange(5))
    assert batch.image.shape == (5, 1, *PATCH)
    image, target = whole(patients)
    for number in range(5):
        places = [
            (item, corner)
            for item in torch.nonzero(patients.patient == owner[number]).flatten().tolist()
            for corner in np.ndindex(
                *(e - p + 1 for e, p in zip(image.extents[item], PATCH, strict=True))
            )
            if torch.equal(image.part(item, corner), batch.image[number])
        ]
        assert len(places) == 1, "a patch of noise is in one place"
        assert torch.equal(target.part(*places[0]), batch.target[number])
        if foreground == 1.0:
            assert batch.target[number].any()


def test_patches_lie_anywhere_up_to_both_ends(patients: Patients) -> None:
    image, _ = whole(patients)
    owner = torch.zeros(2, dtype=torch.int64)
    ends = torch.stack([torch.zeros(7), torch.full((7,), 1 - 2**-24)])
    batch = take(drawn_patches(patients, owner, ends), torch.arange(2))
    volume = image.whole(0)
    assert torch.equal(batch.image[0, 0], volume[0, :4, :6, :5])
    assert torch.equal(batch.image[1, 0], volume[0, -4:, -6:, -5:])


def test_a_structure_is_drawn_first_and_then_a_voxel_of_it(tmp_path: Path) -> None:
    """A structure of three voxels is seen as often as one of thousands."""
    labels = np.zeros((30, 40, 30), np.uint8)
    labels[:20] = 1
    labels[29, 39, 27:] = 2
    places = structure_places(labels, 0)
    assert Counter(places[:, 0].tolist()) == {1: 10_000, 2: 3}
    assert all(labels[tuple(place[1:])] == place[0] for place in places)
    write_item(tmp_path / "image.npy", labels[None].astype(np.float32))
    write_item(tmp_path / "map.npy", labels)
    write_item(tmp_path / "places.npy", places)
    one = Patients(
        image=volumes_of((tmp_path / "image.npy",), (1,), (4, 4, 4), torch.float32),
        table=torch.zeros(1, 0),
        target=volumes_of(
            (tmp_path / "map.npy",), (), (4, 4, 4), torch.uint8, (tmp_path / "places.npy",)
        ),
        patient=torch.zeros(1, dtype=torch.int64),
        pseudonyms=("one",),
    )
    draw = torch.rand((300, 7), generator=torch.Generator().manual_seed(0))
    batch = take(
        drawn_patches(one, torch.zeros(300, dtype=torch.int64), draw, 1.0), torch.arange(300)
    )
    small = int((batch.target == 2).flatten(1).any(1).sum())
    assert 120 < small < 180
    assert batch.target.flatten(1).any(1).all()


def test_volumes_are_read_by_patches_or_whole_and_never_as_items(patients: Patients) -> None:
    image, target = whole(patients)
    assert image.shape == (6, 1, *PATCH)
    both = joined_items([image, torch.zeros(0, 1, *PATCH), image.at(torch.tensor([4, 0]))])
    assert isinstance(both, Volumes)
    assert len(both) == 8
    assert torch.equal(both.whole(6), image.whole(4))
    assert [p.shape[1:] for p in target.pieces()] == [torch.Size(e) for e in target.extents]
    with pytest.raises(TypeError, match="by patches"):
        image[:1]
