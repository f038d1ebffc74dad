"""Small trained models for tests of inference: opened bundles, and bundles in a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from client.inference.trained_model import TrainedModel
from client.results.score import ModelName
from common.bundle.onnx import Deployed
from common.bundle.write import Card, write_bundle
from common.config.run_config import RunConfig
from common.data.sample import Patients
from common.models import extract_features
from common.models.run_network import network_of
from common.tasks import task_of

CARD = Card(metrics={}, privacy="Trained without privacy: no claim is made.", seed=0, round=1)


def model_of(config: RunConfig, network: nn.Module, weights: str = "0" * 64) -> TrainedModel:
    """Return a network as `open_model` would, without a bundle."""
    deployed = Deployed(network, config)
    deployed.requires_grad_(requires_grad=False)
    name = ModelName(name=config.name, fingerprint=config.fingerprint(), weights=weights)
    return TrainedModel(name=name, config=config, deployed=deployed, seed=0, simulated=True)


def stirred(config: RunConfig, seed: int = 1, by: float = 0.3) -> nn.Module:
    """Return a network with weights that no initialiser gives."""
    network = network_of(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=by)
    return network.eval()


def trained(config: RunConfig, patients: Patients, steps: int, rate: float = 1e-2) -> nn.Module:
    """Return a network after a few steps on two items each."""
    network, task = network_of(config, seed=0), task_of(config.task)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randperm(len(patients.patient), generator=generator)[:2]
        output = network(patients.image[chosen], patients.table[chosen])
        optimizer.zero_grad()
        task.item_loss(output, patients.target[chosen]).mean().backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def head_on_features(config: RunConfig, patients: Patients) -> nn.Module:
    """Return the head of a run on frozen features, fitted on these patients."""
    network, task = network_of(config, 0), task_of(config.task)
    features = extract_features(patients.image, config.model)
    optimizer = torch.optim.SGD(network.parameters(), lr=4.0)
    for _ in range(60):
        optimizer.zero_grad()
        output = network(features, patients.table)
        task.item_loss(output, patients.target).mean().backward()
        optimizer.step()
    return network.eval()


def bundled(folder: Path, config: RunConfig, network: nn.Module) -> Path:
    """Write the network as a bundle and return its folder."""
    write_bundle(folder, network, config, CARD)
    return folder
