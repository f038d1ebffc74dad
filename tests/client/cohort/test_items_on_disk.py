from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from client.cohort.split import simulated_key
from common.config.run_config import Images
from common.data import kept_items
from common.data.kept_items import KeptItems, in_memory
from common.data.sample import take
from common.data.volumes import Volumes
from tests.client.cohort.test_cohort import OUTLINES, volumes
from tests.client.dicom_files import config_of, image, load, noise, save, write_labels

SIZE = "{images: {size: [16, 16]}, smallest_cohort: 1}"


def write_site(site: Path, patients: int = 6) -> Path:
    for number in range(patients):
        for item in range(number % 3 + 1):
            picture = image(noise(20, 12, seed=10 * number + item), f"P{number}", number=item)
            save(site / f"P{number}" / f"{item}", picture)
    write_labels(site, [{"PatientID": f"P{n}", "ill": n % 2} for n in range(patients)])
    return site


def files(cache: Path) -> dict[str, bytes]:
    found = (cache / "items").rglob("*.npy")
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in found}


def test_a_cohort_that_stays_on_disk_gives_the_same_parts_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, config = write_site(tmp_path / "site"), config_of(cohort=SIZE)
    memory = load(site, config, tmp_path / "cache")
    monkeypatch.setattr(kept_items, "IN_MEMORY_BYTES", 0)
    for cache in ("cache", "cold"):
        disk = load(site, config, tmp_path / cache)
        assert isinstance(disk.items.image, KeptItems)
        assert torch.equal(in_memory(disk.items.image), in_memory(memory.items.image))
        for part, patients in disk.split(config.cohort.split, simulated_key(0)).items():
            other = memory.split(config.cohort.split, simulated_key(0))[part]
            assert patients.pseudonyms == other.pseudonyms
            everything = torch.arange(len(patients.patient))
            for one, two in zip(take(patients, everything), take(other, everything), strict=True):
                assert torch.equal(one, two)


def test_each_patient_has_files_of_their_own_whoever_else_is_there(tmp_path: Path) -> None:
    config = config_of(cohort=SIZE)
    load(write_site(tmp_path / "few", 4), config, tmp_path / "a")
    load(write_site(tmp_path / "many", 6), config, tmp_path / "b")
    few, many = files(tmp_path / "a"), files(tmp_path / "b")
    assert few.items() < many.items()
    assert len({name.split("/")[1] for name in many}) == 6
    assert not any(f"P{n}" in name for n in range(6) for name in many)


@pytest.mark.parametrize(
    ("rules", "bits"),
    [
        ({"size": (224, 224)}, 32),
        ({"size": (256, 256)}, 32),
        ({"size": (32, 48, 40)}, 32),
        ({"size": (256, 257)}, 16),
        ({"size": (224, 224), "channels": 3}, 16),
        ({"size": (64, 64), "bits": 16}, 16),
        ({"size": (512, 512), "bits": 32}, 32),
    ],
    ids=str,
)
def test_how_many_bits_a_value_has_follows_from_the_configuration(
    rules: dict[str, object], bits: int
) -> None:
    assert Images.model_validate(rules).kept_bits == bits


def test_16_bits_move_an_image_by_a_step_of_65535_of_its_range(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    whole = load(site, config_of(cohort=SIZE), tmp_path / "cache")
    small = load(site, config_of(cohort=SIZE.replace("size", "bits: 16, size")), tmp_path / "cache")
    assert {len(content) for content in files(tmp_path / "cache").values()} == {
        4 * 256 + 144,
        2 * 256 + 144,
    }
    for one, two in zip(small.items.image[:], whole.items.image[:], strict=True):
        assert (one - two).abs().max() <= (two.max() - two.min()) / 131_000
        assert (one[two == two.min()] == two.min()).all()


def test_an_item_that_was_damaged_is_made_again_and_the_others_stay(tmp_path: Path) -> None:
    site, config, cache = write_site(tmp_path / "site"), config_of(cohort=SIZE), tmp_path / "cache"
    first = load(site, config, cache)
    before = files(cache)
    victim = cache / min(before)
    times = {name: (cache / name).stat().st_mtime_ns for name in before}
    victim.write_bytes(victim.read_bytes()[:-100])
    again = load(site, config, cache)
    assert torch.equal(in_memory(first.items.image), in_memory(again.items.image))
    assert files(cache) == before
    changed = {n for n in before if (cache / n).stat().st_mtime_ns != times[n]}
    assert changed == {min(before)}


PATCHES = "{images: {patch: [8, 8, 8], spacing: [2.0, 0.5, 0.7], bits: 32}}"


def test_volumes_with_patches_keep_their_own_extent_and_their_outlines(tmp_path: Path) -> None:
    masks = volumes(tmp_path / "s")
    config = config_of(OUTLINES, PATCHES, "unet")
    for _ in range(2):  # made, and as they are kept
        cohort = load(tmp_path / "s", config, tmp_path / "c")
        image, target = cohort.items.image, cohort.items.target
        assert isinstance(image, Volumes)
        assert isinstance(target, Volumes)
        assert image.shape == (3, 1, 8, 8, 8)
        assert set(image.extents) == {(8, 16, 16)}
        for number, found in enumerate(masks.values()):
            assert np.array_equal(target.whole(number).numpy(), found)
            order = np.corrcoef(noise(8, 16, 16, seed=number).ravel(), image.whole(number).ravel())[
                0, 1
            ]
            assert order > 0.99
    assert not cohort.unusable


def test_a_volume_smaller_than_a_patch_has_zeros_around_it(tmp_path: Path) -> None:
    volumes(tmp_path / "s")
    wide = PATCHES.replace("[8, 8, 8]", "[16, 8, 24]").replace(", bits: 32", "")
    cohort = load(tmp_path / "s", config_of(OUTLINES, wide, "unet"), tmp_path / "c")
    image = cohort.items.image
    assert isinstance(image, Volumes)
    assert set(image.extents) == {(16, 16, 24)}
    assert not image.whole(0)[:, :4].any()
    assert image.whole(0)[:, 4:12, :, 4:20].any()
    sizes = {p.stat().st_size for p in (tmp_path / "c" / "items").rglob("*.npy")}
    assert 2 * 16 * 16 * 24 + 144 in sizes, "16 bits a value where nothing else is said"
