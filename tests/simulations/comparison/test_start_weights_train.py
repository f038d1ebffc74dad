"""Runs that begin from a file: the frozen part stays as it was, and a bundle holds all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from client.inference.trained_model import open_model
from common.data.weight_files import VARIABLE
from common.models.run_network import network_of
from simulations.comparison.arms import Arm
from simulations.comparison.compare import ComparisonPlan, ComparisonProgress, compare
from simulations.report.bundle_output import write_shared_model
from tests.simulations.golden import cohorts, config_of

_PRIVATE = "{unit: patient, epsilon: 8.0, delta: 0.001, default_patients: 14}"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["federated", "federated_dp"])
def test_what_is_frozen_is_the_files_in_every_round_and_in_the_bundle(
    arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    drawn = torch.Generator().manual_seed(3)
    held = {
        name: 0.1 * torch.randn(value.shape, generator=drawn)
        for name, value in network_of(config_of(), 0).named_parameters()
    }
    save_file(held, tmp_path / "new")
    sha256 = hashlib.sha256((tmp_path / "new").read_bytes()).hexdigest()
    path = (tmp_path / "new").rename(tmp_path / f"{sha256}.safetensors")
    start = f"{{sha256: {sha256}, names: wardround, source: a run, licence: CC0}}"
    config = config_of(
        model=f"{{network: small_cnn, width: 8, start: {start}, train: head}}",
        privacy=_PRIVATE if arm == "federated_dp" else "none",
    )
    plan = ComparisonPlan(arms=(arm,), seeds=(0,), folder=tmp_path)
    found = compare(config, cohorts(config), plan, ComparisonProgress())
    weights = found.outcomes[arm, 0][0].weights
    assert {name.partition(".")[0] for name in weights} == {"head"}
    assert write_shared_model(tmp_path / "bundle", found)
    path.unlink()  # who opens a bundle needs no file
    opened = dict(open_model(tmp_path / "bundle").deployed.network.named_parameters())
    for name, value in opened.items():
        assert torch.equal(value, held[name]) == name.startswith("body."), name
