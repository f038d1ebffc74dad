"""First weights from a public file: found by hash, put where they belong, trained where it says."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

import pytest
import torch
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.resnet import resnet18, resnet50
from monai.networks.nets.swin_unetr import SwinUNETR
from safetensors.torch import save_file
from torch import Tensor, nn

from common.config.run_config import RunConfig, parse_config
from common.data.weight_files import VARIABLE, weight_bytes, weights_fault
from common.models.run_network import initial_weights, network_of
from common.models.start_weights import ChannelAffine
from common.platform.errors import ConfigurationError


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of weights; whoever asks a network for them fails."""

    def refused(*_given: object) -> None:
        pytest.fail("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def put(folder: Path, held: dict[str, Tensor], ending: str = ".safetensors") -> str:
    """Put a file of tensors into the folder; returns its hash."""
    path = folder / "new"
    if ending == ".safetensors":
        save_file({name: value.contiguous() for name, value in held.items()}, path)
    else:
        torch.save({"state_dict": held, "epoch": 3}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(folder / f"{sha256}{ending}")
    return sha256


def config_of(
    sha256: str,
    network: str = "resnet50",
    names: str = "torchvision",
    train: str = "all",
    images: str = "size: [32, 32], channels: 3",
    task: str = "{kind: diagnosis, target: y}",
    model: str = "",
) -> RunConfig:
    return parse_config(
        f"""
name: begins
task: {task}
cohort: {{images: {{{images}}}}}
model:
  network: {network}
  start: {{sha256: {sha256}, names: {names}, source: a paper, licence: CC BY 4.0}}
  train: {train}
  {model}
training: {{rounds: 1}}
privacy: none
"""
    )


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network as if it had been trained: weights and statistics of its own."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=drawn)
                value.add_(0.1 * noise if "running_var" in name else 0.1 * (noise - 0.5))
    return network.eval()


def theirs(channels: int = 3, dimensions: int = 2, *, bias: bool = False) -> nn.Module:
    """Return a ResNet-50 as its authors have it; its names are torchvision's and MedicalNet's."""
    network = resnet50(
        pretrained=False,
        spatial_dims=dimensions,
        n_input_channels=channels,
        feed_forward=False,
        bias_downsample=bias,
    )
    return with_statistics(network)


def body_of(network: nn.Module) -> nn.Module:
    return network.get_submodule("body")


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


IMAGE = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(7))


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_network_begins_as_its_authors_left_it(weights: Path, ending: str) -> None:
    network = theirs()
    sha256 = put(weights, {**network.state_dict(), "fc.weight": torch.zeros(2, 3)}, ending)
    ours = body_of(network_of(config_of(sha256), 0))
    assert not [m for m in ours.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    assert close(ours(IMAGE), network(IMAGE))
    assert close(ours(IMAGE[:1]), ours(IMAGE)[:1])  # no item sees another


@pytest.mark.slow
def test_grey_images_are_what_they_were_in_colours(weights: Path) -> None:
    network = theirs()
    sha256 = put(weights, dict(network.state_dict()))
    ours = body_of(network_of(config_of(sha256, images="size: [32, 32]"), 0))
    grey = IMAGE[:, :1]
    assert close(ours(grey), network(grey.expand(-1, 3, -1, -1)))


@pytest.mark.slow
def test_names_of_densenet_as_torchvision_has_them(weights: Path) -> None:
    network = with_statistics(DenseNet121(2, 3, out_channels=1))
    held = {n.replace(".layers.", "."): v for n, v in network.state_dict().items()}
    assert any("denselayer1.norm1" in name for name in held)
    for names, prefix in (("torchvision", ""), ("radimagenet", "backbone.0.")):
        own = {n.replace("features.", prefix) if prefix else n: v for n, v in held.items()}
        ours = body_of(network_of(config_of(put(weights, own), "densenet121", names), 0))
        network.class_layers.out = nn.Identity()
        assert close(ours(IMAGE), network(IMAGE))


@pytest.mark.slow
def test_names_of_radimagenets_resnet(weights: Path) -> None:
    network = theirs()
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    held = {
        re.sub(r"^(\w+)", lambda m: f"backbone.{places[m[1]]}", name): value
        for name, value in network.state_dict().items()
    }
    ours = body_of(network_of(config_of(put(weights, held), names="radimagenet"), 0))
    assert close(ours(IMAGE), network(IMAGE))


@pytest.mark.slow
def test_names_of_medicalnet(weights: Path) -> None:
    network = theirs(1, 3)
    held = {f"module.{name}": value for name, value in network.state_dict().items()}
    config = config_of(put(weights, held, ".pth"), names="medicalnet", images="size: [16, 16, 16]")
    image = torch.rand((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(1))
    assert close(body_of(network_of(config, 0))(image), network(image))


def test_the_encoder_of_swin_unetr_begins_from_its_pre_training(weights: Path) -> None:
    network = with_statistics(SwinUNETR(1, 2, feature_size=12, spatial_dims=2))
    encoder = "swinViT."
    held = {
        "module." + n.removeprefix(encoder).replace("mlp.linear", "mlp.fc"): v
        for n, v in network.state_dict().items()
        if n.startswith(encoder)
    }
    config = config_of(
        put(weights, held, ".pt"), "swin_unetr", "swin_unetr_ssl", images="size: [32, 32]",
        task="{kind: segmentation}", model="width: 12",
    )  # fmt: skip
    ours = dict(network_of(config, 0).named_parameters())
    before = dict(network_of(config, 0, start=False).named_parameters())
    for name, value in network.named_parameters():
        if name.startswith(encoder):
            assert torch.equal(ours[f"body.{name}"], value)
        elif f"body.{name}" in ours:
            assert torch.equal(ours[f"body.{name}"], before[f"body.{name}"])


def test_another_byte_is_refused_with_both_hashes(weights: Path) -> None:
    sha256 = put(weights, dict(theirs().state_dict()))
    path = weights / f"{sha256}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ConfigurationError, match=f"{found}, expected {sha256}"):
        network_of(config_of(sha256), 0)


def test_a_file_that_is_not_there_is_named_with_its_place(weights: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"Put their file into {weights} as {'ab' * 32}"):
        initial_weights(config_of("ab" * 32), 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h.pop("layer4.0.conv1.weight"), "lacks 1 of .*layer4.0.conv1.weight"),
        (lambda h: h.pop("layer1.0.bn1.running_mean"), "lacks 2 of .*layer1.0.bn1.scale"),
        (
            lambda h: h.update({"conv1.weight": torch.zeros(64, 3, 7, 7, 7)}),
            r"conv1.weight is \(64, 3, 7, 7, 7\) in the file .* \(64, 3, 7, 7\) in the network",
        ),
        (
            lambda h: h.update({"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}),
            "conv1.weight .* values that are not numbers",
        ),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_name(
    weights: Path, change: object, said: str
) -> None:
    held = dict(theirs().state_dict())
    change(held)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=said):
        network_of(config_of(put(weights, held)), 0)


def test_a_file_is_data_and_runs_nothing(weights: Path) -> None:
    path = weights / "new"
    torch.save({"state_dict": _Runs()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(weights / f"{sha256}.pth")
    with pytest.raises(ConfigurationError, match="holds no weights"):
        network_of(config_of(sha256), 0)
    assert not (weights / "ran").exists()


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("ran",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "train", "trained"),
    [
        ("resnet50", "head", r"head\."),
        ("resnet50", "{last_blocks: 1}", r"head\.|body\.layer4\."),
        (
            "densenet121",
            "{last_blocks: 2}",
            r"head\.|body\.features\.(denseblock3|denseblock4|transition3|norm5)\.",
        ),
        ("efficientnet_b0", "{last_blocks: 1}", r"head\.|body\.(_blocks\.6|_conv_head|_bn1)\."),
        ("vit", "{last_blocks: 1}", r"head\.|body\.network\.(blocks\.11|norm)\.(?!.*cross_attn)"),
    ],
)
def test_exactly_the_named_part_is_trained(
    weights: Path, network: str, train: str, trained: str
) -> None:
    plain = parse_config(
        f"name: plain\ntask: {{kind: diagnosis, target: y}}\ncohort: {{images: {{size: [32, 32]}}}}"
        f"\nmodel: {{network: {network}}}\ntraining: {{rounds: 1}}\nprivacy: none"
    )
    held = {n: v.detach().clone() for n, v in network_of(plain, 1).named_parameters()}
    config = config_of(put(weights, held), network, "wardround", train, "size: [32, 32]")
    made = network_of(config, 0)
    found = {name for name, value in made.named_parameters() if value.requires_grad}
    assert found == {name for name in held if re.match(trained, name)}
    assert set(initial_weights(config, 0)) == found  # nothing else is ever sent
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    optimizer = torch.optim.SGD([v for v in made.parameters() if v.requires_grad], lr=0.1)
    made(IMAGE[:, :1], torch.zeros(2, 0)).sum().backward()
    optimizer.step()
    for name, value in made.named_parameters():
        assert torch.equal(value, before[name]) == (value.grad is None), name
        if not name.startswith("head."):
            assert torch.equal(before[name], held[name])


def test_a_network_whose_weights_all_come_from_elsewhere_needs_no_file(weights: Path) -> None:
    made = network_of(config_of("ab" * 32), 0, start=False)
    assert any(isinstance(module, ChannelAffine) for module in made.modules())
    assert not list(weights.iterdir())


@pytest.mark.parametrize(
    ("network", "names", "train", "said"),
    [
        ("small_cnn", "torchvision", "all", "start.names=torchvision fits densenet121, resnet18"),
        ("frozen_features", "wardround", "all", "backbone=efficientnet_lite0 brings its own"),
        ("small_cnn", "wardround", "{last_blocks: 1}", "needs a body in blocks"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_configuration(
    network: str, names: str, train: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        config_of("ab" * 32, network, names, train)


def test_a_frozen_part_needs_weights_to_begin_from() -> None:
    with pytest.raises(ConfigurationError, match="drawn by chance without model"):
        parse_config(
            "name: plain\ntask: {kind: diagnosis, target: y}\n"
            "cohort: {images: {size: [32, 32]}}\n"
            "model: {network: resnet50, train: head}\ntraining: {rounds: 1}\nprivacy: none"
        )


# --- files that were made to mislead ---------------------------------------------------------


def twice(held: dict[str, Tensor]) -> None:
    held["module.layer1.0.conv1.weight"] = 100 * held["layer1.0.conv1.weight"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "change", "said"),
    [
        ("monai", twice, r"two tensors of one layer, (module\.)?layer1.*layer1.0.conv1.weight"),
        (
            "torchvision",
            lambda h: h.update({"layer1.0.bn1.running_var": torch.full((64,), -1.0)}),
            r"layer1.0.bn1.scale .* not numbers",
        ),
        (
            "torchvision",
            lambda h: h.update({"layer1.0.bn1.running_mean": torch.full((64,), torch.inf)}),
            r"layer1.0.bn1.shift .* not numbers",
        ),
        (
            "torchvision",
            lambda h: h.update({"conv1.weight": h["conv1.weight"].double() * 1e42}),
            r"conv1.weight .* too large",
        ),
        (
            "torchvision",
            lambda h: h.update({"conv1.weight": torch.ones((64, 3, 7, 7), dtype=torch.int32)}),
            r"conv1.weight .* is int32, expected plain floating numbers",
        ),
        (
            "torchvision",
            lambda h: h.update({"conv1.weight": torch.ones((64, 3, 7, 7), dtype=torch.complex64)}),
            r"conv1.weight .* is complex64, expected",
        ),
        (
            "torchvision",
            lambda h: h.update({"conv1.weight": torch.ones((64, 3, 7, 7)).to_sparse()}),
            r"conv1.weight .* is sparse_coo, expected",
        ),
    ],
)
def test_a_file_that_was_made_to_mislead_is_refused(
    weights: Path, names: str, change: object, said: str
) -> None:
    held = dict(resnet18(pretrained=False, spatial_dims=2, n_input_channels=3).state_dict())
    change(held)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=said):
        network_of(config_of(put(weights, held, ".pth"), "resnet18", names), 0)


@pytest.mark.slow
def test_half_floats_begin_and_tensors_of_no_layer_are_passed_over(weights: Path) -> None:
    held = dict(resnet18(pretrained=False, spatial_dims=2, n_input_channels=3).state_dict())
    more = {"layer9.conv1.weight": torch.full((3,), torch.nan), "head.0.weight": torch.ones(1, 512)}
    plain = network_of(config_of(put(weights, held), "resnet18"), 0)
    half = {n: v.half() if v.is_floating_point() else v for n, v in held.items()}
    found = network_of(config_of(put(weights, {**half, **more}), "resnet18"), 0)
    for (name, ours), expected in zip(found.named_parameters(), plain.parameters(), strict=True):
        assert ours.dtype is torch.float32
        torch.testing.assert_close(ours, expected, rtol=2e-3, atol=1e-4, msg=name)
    assert torch.equal(found.state_dict()["head.0.weight"], plain.state_dict()["head.0.weight"])


def test_a_file_that_changes_between_plan_and_run_is_refused(weights: Path) -> None:
    """Also where its time of change was set back."""
    sha256 = put(weights, {"a": torch.zeros(4)})
    path = weights / f"{sha256}.safetensors"
    assert weights_fault(sha256) is None
    held, before = path.read_bytes(), path.stat()
    path.write_bytes(held[:-1] + b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert f"expected {sha256}" in str(weights_fault(sha256))
    with pytest.raises(ConfigurationError, match=f"expected {sha256}"):
        weight_bytes(sha256)
