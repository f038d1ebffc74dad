"""A federation of processes on patches of DICOM volumes, from the folders on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.config.run_config import load_config, parse_config
from tests.end_to_end.federation import federation
from tests.end_to_end.hospitals import mr_volumes
from tests.end_to_end.simulation import simulated

pytestmark = pytest.mark.slow

NAMES = ("mr-one", "mr-two")
RUN = """
name: patches
task: {kind: segmentation, mask: outline, structures: {rim: [1], core: [2]}}
cohort:
  images: {patch: [16, 16, 16], spacing: [2.0, 0.5, 0.5], intensity: zscore, modalities: [MR]}
  smallest_cohort: 3
  split: {test_fraction: 0.3, validation_fraction: 0.1}
model: {network: unet, width: 2}
training: {rounds: 2, local_steps: 2, batch_patients: 2, optimizer: sgd, learning_rate: 0.1}
aggregation: {smallest_quorum: 2}
selection: {rule: last}
evaluation: {bootstrap: 20, smallest_cell: 1}
personalisation: {method: none}
privacy: none
"""


def check_proposed(text: str) -> None:
    """Look at what was planned from the sites' counts: 8 x 24 x 24 voxels of 2 x 0.5 x 0.7 mm."""
    assert "PROPOSED, not in force" in text
    images = parse_config(text).cohort.images
    assert images is not None
    assert images.spacing is not None
    assert images.patch is not None
    for mm, scanned in zip(images.spacing, (2.0, 0.5, 0.7), strict=True):
        assert 1 / 1.34 < mm / scanned < 1.34  # one public range
    assert all(8 <= side <= 40 for side in images.patch)  # that is the whole volume, and fits


def test_a_federation_on_patches_ends_in_the_bits_of_its_simulation(tmp_path: Path) -> None:
    mr_volumes(tmp_path / "data")
    path = tmp_path / "patches.yaml"
    path.write_text(RUN)
    data = {name: tmp_path / "data" / name for name in NAMES}
    with federation(tmp_path / "federation", data) as found:
        for site in found.sites.values():
            site.allow(smallest_cohort=3)
        run = found.coordinator.run(path)
        assert run.end(120) == "done", run.message
        expected = simulated(load_config(path), found.sites, tmp_path / "cache")
        proposal = found.coordinator.type("propose", str(path))
    check_proposed(proposal)
    state = run.result()
    assert [sorted(record.updates) for record in state.history] == [list(NAMES)] * 2
    assert state.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        assert torch.equal(state.weights[name], value), name
    told, meant = (  # as text, in which two values that are not known are the same
        [sorted(map(str, record.metrics.items())) for record in one.history]
        for one in (state, expected)
    )
    assert told == meant
