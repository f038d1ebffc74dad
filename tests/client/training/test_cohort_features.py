from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from client.site.cache import Cache
from client.training.cohort_features import site_of, with_features
from common.config.run_config import RunConfig
from common.extensions.pinning import pinned
from common.models import extract_features
from common.models.extension_backbone import _ready
from common.models.frozen_features import _network
from tests.client.dicom_files import config_of, image, load, noise, save, write_labels
from tests.extensions import EXAMPLE, on_path, written

CONFIG = config_of(cohort="{images: {size: [32, 32]}}", network="frozen_features")


@pytest.fixture
def cohort(tmp_path: Path) -> SiteCohort:
    folder = tmp_path / "a"
    for number in range(12):
        save(folder / f"{number}.dcm", image(noise(32, 32, seed=number), f"P{number}"))
    write_labels(folder, [{"PatientID": f"P{n}", "ill": n % 2} for n in range(12)])
    return load(folder, CONFIG, tmp_path / "cache")


def projected(to: int) -> RunConfig:
    return CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"projection": to})})


def test_features_are_those_of_the_network_and_everything_else_stays(
    cohort: SiteCohort, tmp_path: Path
) -> None:
    found = with_features(cohort, CONFIG, Cache(tmp_path / "features"))
    expected = extract_features(cohort.items.image, CONFIG.model)
    assert torch.equal(found.items.image, expected)
    assert found.items.image.dtype == torch.float32
    assert found.items.pseudonyms == cohort.items.pseudonyms
    assert torch.equal(found.items.target, cohort.items.target)


def test_features_are_computed_once_and_then_read(cohort: SiteCohort, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    first = with_features(cohort, CONFIG, Cache(folder))
    (kept,) = folder.glob("*.npy")
    written = kept.stat().st_mtime_ns
    again = with_features(cohort, CONFIG, Cache(folder))
    assert torch.equal(first.items.image, again.items.image)
    assert kept.stat().st_mtime_ns == written
    assert len(list(folder.glob("*.npy"))) == 1


def test_other_images_and_another_projection_are_other_features(
    cohort: SiteCohort, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "features")
    first = with_features(cohort, CONFIG, cache).items.image
    changed = cohort.with_images(cohort.items.image.flip(0))
    assert not torch.equal(with_features(changed, CONFIG, cache).items.image, first)
    assert with_features(cohort, projected(8), cache).items.image.shape == (12, 8)


def test_another_content_and_other_arguments_of_an_extension_are_other_features(
    cohort: SiteCohort, tmp_path: Path
) -> None:
    text = (EXAMPLE / "src" / "example_nets" / "__init__.py").read_text()
    points, cache = {"backbones": ["filters"]}, Cache(tmp_path / "features")

    def features(code: str, width: int) -> tuple[torch.Tensor, int]:
        with on_path(written(tmp_path / "site", "example-nets", code, points)):
            model = {"network": "frozen_features", "backbone": "example-nets/filters"}
            more = {"model": {**model, "arguments": {"width": width}}}
            run = pinned(RunConfig.model_validate({**CONFIG.model_dump(), **more}))
            found = with_features(cohort, run, cache).items.image
            alone = extract_features(cohort.items.image, run.model, run.extensions)
        assert torch.equal(found, alone)
        return found, len(list(cache.folder.glob("*.npy")))

    first, one = features(text, 8)
    again, still = features(text, 8)
    other, two = features(text.replace("image).relu()", "image).abs()"), 8)
    wider, three = features(text, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert wider.shape == (12, 16)
    assert (one, still, two, three) == (1, 1, 2, 3)


def test_weights_that_are_read_from_elsewhere_are_other_features_of_one_content(
    cohort: SiteCohort, tmp_path: Path
) -> None:
    text = (EXAMPLE / "src" / "example_nets" / "__init__.py").read_text()
    old = "self.filters = convolution(shapes.channels, arguments.width, 7, stride=3, padding=3)"
    assert old in text
    weights, cache = tmp_path / "weights", Cache(tmp_path / "features")
    read = f"float(__import__('pathlib').Path({str(weights)!r}).read_text())"
    code = text.replace(old, f"{old}\n        self.filters.weight.data.mul_({read})")
    site = written(tmp_path / "site", "example-nets", code, {"backbones": ["filters"]})

    def features(value: str) -> tuple[torch.Tensor, str]:
        weights.write_text(value)
        _ready.cache_clear()  # as in a new process
        _network.cache_clear()
        with on_path(site):
            model = {"network": "frozen_features", "backbone": "example-nets/filters"}
            run = pinned(RunConfig.model_validate({**CONFIG.model_dump(), "model": model}))
            return with_features(cohort, run, cache).items.image, run.extensions[0].content

    first, content = features("1")
    assert torch.equal(features("1")[0], first)
    assert len(list(cache.folder.glob("*.npy"))) == 1
    other, same = features("-1")
    assert content == same
    assert not torch.equal(other, first)


def test_a_site_has_the_patients_of_the_seed_and_the_fold_in_each_part(cohort: SiteCohort) -> None:
    for key in (simulated_key(0), simulated_key(1)):
        site = site_of(replace(cohort, name="north"), CONFIG, key)
        parts = cohort.split(CONFIG.cohort.split, key)
        assert site.name == "north"
        for held, part in (
            (site.train, "train"),
            (site.validation, "validation"),
            (site.test, "test"),
        ):
            assert held.pseudonyms == parts[part].pseudonyms  # type: ignore[index]  # its names
        assert site.guard is None
