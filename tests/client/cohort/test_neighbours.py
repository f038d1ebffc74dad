"""Slices between their neighbours (cohort.images.neighbours): by position, one item a slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from client.dicom.reasons import Reason
from client.inference.trained_model import Local, score_study
from client.training.evaluation import score
from client.training.local_model import open_local_model
from common.config.run_config import RunConfig, parse_config
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import load, noise, save, slices, write_labels
from tests.client.small_models import model_of, stirred

SLICES = 5
VALUES = noise(SLICES, 20, 24, seed=3)


def config_of(images: str = "neighbours: 1, channels: 3", pool: str = "mean") -> RunConfig:
    return parse_config(f"""
name: beside
task: {{kind: diagnosis, target: ill}}
cohort: {{images: {{size: [20, 24], fit: stretch, intensity: window, window: [0, 4000], {images}}}}}
model: {{network: small_cnn, width: 2, pool: {pool}}}
training: {{rounds: 1}}
privacy: none
""")


def site(folder: Path, *, without: int | None = None) -> Path:
    """Write a series whose files are in another order than its slices."""
    for number, one in enumerate(slices(VALUES)):
        if number != without:
            save(folder / "P1" / f"{(number * 3) % SLICES}.dcm", one)
    write_labels(folder, [{"PatientID": "P1", "ill": 1}])
    return folder


def test_each_slice_stands_between_those_beside_it(tmp_path: Path) -> None:
    cohort = load(site(tmp_path / "site"), config_of(), tmp_path / "cache")
    found = cohort.items.image[:]
    assert found.shape == (SLICES, 3, 20, 24)
    scaled = torch.from_numpy(VALUES.astype(np.float32) / 4000)
    middle = [int((found[n, 1] - scaled).abs().amax(dim=(1, 2)).argmin()) for n in range(SLICES)]
    assert sorted(middle) == list(range(SLICES))
    for n, place in enumerate(middle):
        beside = max(place - 1, 0), place, min(place + 1, SLICES - 1)
        expected = [scaled[list(order)] for order in (beside, beside[::-1])]
        assert any(torch.allclose(found[n], one, atol=1e-4) for one in expected)
    directions = [
        torch.allclose(found[n, 0], scaled[max(p - 1, 0)], atol=1e-4)
        for n, p in enumerate(middle)
        if 0 < p < SLICES - 1
    ]
    assert len(set(directions)) == 1, "before and after mean the same for all"


def test_a_study_is_scored_with_the_same_neighbours(tmp_path: Path) -> None:
    folder, config = site(tmp_path / "site"), config_of(pool="attention")
    network = stirred(config)
    local_model = open_local_model(config, 0)
    own = dict(network.named_parameters())
    local_model.load({name: own[name] for name in local_model.trained})
    expected = score(local_model, load(folder, config, tmp_path / "cache").items).prediction
    files = sorted((folder / "P1").glob("*.dcm"))
    (found,) = score_study(files, model_of(config, network), Local())
    assert found.quantities[0].raw == pytest.approx(float(expected[0, 0]), abs=1e-6)
    assert len(found.quantities) == 1 + SLICES


def test_a_series_with_a_gap_has_no_neighbours(tmp_path: Path) -> None:
    found = None
    try:
        load(site(tmp_path / "site", without=2), config_of(), tmp_path / "cache")
    except Exception as error:  # noqa: BLE001 - nobody is left; its words are looked at
        found = str(error)
    assert found is not None
    assert Reason.MISSING_SLICES.name in found


@pytest.mark.parametrize(
    "images", ["neighbours: 1", "neighbours: 1, channels: 3, slide: {mpp: 1.0}"]
)
def test_neighbours_need_three_channels_and_no_slide(images: str) -> None:
    with pytest.raises(ConfigurationError, match="channels: 3"):
        config_of(images)
