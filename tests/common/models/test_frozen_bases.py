"""Frozen bases from a file: what their authors computed, named by hash, trained by nobody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from client.governance.plain_words import described
from client.site.cache import Cache
from client.training.cohort_features import with_features
from common.bundle.backbone_check import check_backbone
from common.bundle.onnx import Deployed, onnx_of
from common.bundle.torchscript import torchscript_of
from common.config.run_config import RunConfig, parse_config
from common.models import FrozenFeatures, extract_features, feature_width, image_shape
from common.models.run_network import initial_weights, network_of
from common.models.vision_transformer import FORMS, Form
from common.platform.errors import ConfigurationError
from simulations.comparison.cohorts import what_is_read
from tests.common.models.test_start_weights import put, theirs, weights, with_statistics

__all__ = ["weights"]


def config_of(
    sha256: str,
    backbone: str,
    names: str,
    size: str = "[28, 28]",
    *,
    model: str = "",
    more: str = "",
) -> RunConfig:
    return parse_config(f"""
name: looks
task: {{kind: diagnosis, target: y}}
cohort: {{images: {{size: {size}{more}}}}}
model:
  network: frozen_features
  backbone: {backbone}
  start: {{sha256: {sha256}, names: {names}, source: a paper, licence: CC BY-NC 4.0}}
  {model}
training: {{rounds: 1}}
privacy: none
""")


def images_of(config: RunConfig, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((2, *image_shape(config.cohort.images)), generator=generator)


def bounded(features: Tensor) -> Tensor:
    """Return features as the head sees them: mean 0 over themselves, length 1."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def check_features(config: RunConfig, expected: Tensor) -> None:
    found = extract_features(images_of(config), config.model)
    assert found.shape == expected.shape == (2, feature_width(config.model))
    torch.testing.assert_close(found, bounded(expected), rtol=1e-3, atol=2e-5)


def shifted(image: Tensor, mean: Mapping[int, float], deviation: Mapping[int, float]) -> Tensor:
    """Return the image in three colours, each less its mean, by its deviation."""
    colour = image.expand(-1, 3, -1, -1)
    planes = [(colour[:, n] - mean[n]) / deviation[n] for n in range(3)]
    return torch.stack(planes, dim=1)


def imagenet(image: Tensor) -> Tensor:
    return shifted(image, {0: 0.485, 1: 0.456, 2: 0.406}, {0: 0.229, 1: 0.224, 2: 0.225})


# --- networks of MONAI's forms ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("colours", ["", ", channels: 3"])
def test_torchvisions_resnet_is_shown_what_imagenet_was(weights: Path, colours: str) -> None:
    network = theirs()
    sha256 = put(weights, dict(network.state_dict()), ".pth")
    config = config_of(sha256, "resnet50", "torchvision", "[32, 32]", more=colours)
    check_features(config, network(imagenet(images_of(config))))


@pytest.mark.slow
def test_radimagenets_densenet_is_shown_minus_one_to_one(weights: Path) -> None:
    network = with_statistics(DenseNet121(2, 3, out_channels=1))
    held = {
        n.replace(".layers.", ".").replace("features.", "backbone.0."): v
        for n, v in network.state_dict().items()
    }
    network.class_layers.out = nn.Identity()
    config = config_of(put(weights, held), "densenet121", "radimagenet", "[32, 32]")
    check_features(config, network(2 * images_of(config).expand(-1, 3, -1, -1) - 1))


@pytest.mark.slow
def test_medicalnets_volumes_have_mean_0_where_they_show_something(weights: Path) -> None:
    network = theirs(1, 3)
    held = {f"module.{name}": value for name, value in network.state_dict().items()}
    config = config_of(put(weights, held, ".pth"), "resnet50", "medicalnet", "[16, 16, 16]")
    volumes = images_of(config)
    volumes[:, :, :4] = 0
    normal = torch.zeros_like(volumes)
    for number in range(2):
        inside = volumes[number] != 0
        shown = volumes[number][inside]
        normal[number][inside] = (shown - shown.mean()) / shown.std(correction=0)
    found = extract_features(volumes, config.model)
    torch.testing.assert_close(found, bounded(network(normal)), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("size", ["[32, 32]", "[32, 32, 32]"])
def test_the_encoder_of_swin_unetr_as_it_was_trained_beforehand(weights: Path, size: str) -> None:
    dimensions = len(size.split(","))
    network = with_statistics(SwinUNETR(1, 2, feature_size=12, spatial_dims=dimensions))
    held = {
        "module." + n.removeprefix("swinViT.").replace("mlp.linear", "mlp.fc"): v
        for n, v in network.state_dict().items()
        if n.startswith("swinViT.")
    }
    sha256 = put(weights, held, ".pt")
    config = config_of(sha256, "swin_unetr", "swin_unetr_ssl", size, model="width: 12")
    check_features(config, network.swinViT(images_of(config))[-1].flatten(2).mean(2))


def test_a_base_of_our_own_network_has_its_norms(weights: Path) -> None:
    plain = parse_config(
        "name: plain\ntask: {kind: diagnosis, target: y}\ncohort: {images: {size: [32, 32]}}\n"
        "model: {network: resnet18}\ntraining: {rounds: 1}\nprivacy: none"
    )
    network = network_of(plain, 3)
    held = {name: value.detach() for name, value in network.named_parameters()}
    config = config_of(put(weights, held), "resnet18", "wardround", "[32, 32]")
    check_features(config, network.get_submodule("body")(images_of(config)))


# --- transformers ----------------------------------------------------------------------------


def published(backbone: str) -> dict[str, Tensor]:
    """Return random tensors with the names and shapes that the authors publish."""
    form, generator = FORMS[backbone], torch.Generator().manual_seed(5)
    width = form.width

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    held = {
        "cls_token": normal(1, 1, width),
        "pos_embed": normal(1, 1 + form.grid**2, width),
        "patch_embed.proj.weight": normal(width, 3, form.patch, form.patch),
        "patch_embed.proj.bias": normal(width),
        "norm.weight": 1 + normal(width),
        "norm.bias": normal(width),
    }
    for number in range(form.blocks):
        block = {
            "norm1.weight": 1 + normal(width),
            "norm1.bias": normal(width),
            "attn.qkv.weight": normal(3 * width, width),
            "attn.qkv.bias": normal(3 * width),
            "attn.proj.weight": normal(width, width),
            "attn.proj.bias": normal(width),
            "norm2.weight": 1 + normal(width),
            "norm2.bias": normal(width),
            "mlp.fc1.weight": normal(4 * width, width),
            "mlp.fc1.bias": normal(4 * width),
            "mlp.fc2.weight": normal(width, 4 * width),
            "mlp.fc2.bias": normal(width),
        }
        if form.scaled:
            block |= {"ls1.gamma": 0.5 + normal(width), "ls2.gamma": 0.5 + normal(width)}
        held |= {f"blocks.{number}.{name}": value for name, value in block.items()}
    if backbone == "dinov2_vits14":
        return held | {"mask_token": normal(1, width)}
    text = {"text.proj.0.weight": normal(640, 768), "logit_scale": torch.tensor(4.0)}
    return (
        {f"visual.trunk.{n}": v for n, v in held.items()}
        | text
        | {"visual.head.proj.weight": normal(512, width)}
    )


def twin(form: Form, held: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Return the class token's state, by torch's own layers of a transformer."""
    width, at = form.width, held.__getitem__
    patches = F.conv2d(
        image, at("patch_embed.proj.weight"), at("patch_embed.proj.bias"), stride=form.patch
    )
    grid = patches.shape[2:]
    places = at("pos_embed")[:, 1:]
    if tuple(grid) != (form.grid, form.grid):
        maps = places.reshape(1, form.grid, form.grid, width).permute(0, 3, 1, 2)
        factors = tuple((side + 0.1) / form.grid for side in grid)
        maps = F.interpolate(maps, scale_factor=factors, mode="bicubic")
        places = maps.permute(0, 2, 3, 1).reshape(1, -1, width)
    token = (at("cls_token") + at("pos_embed")[:, :1]).expand(len(image), -1, -1)
    states = torch.cat([token, patches.flatten(2).transpose(1, 2) + places], dim=1)
    for number in range(form.blocks):
        layer = nn.TransformerEncoderLayer(
            width, form.heads, 4 * width, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=True
        )
        block = {
            n.removeprefix(f"blocks.{number}."): v
            for n, v in held.items()
            if n.startswith(f"blocks.{number}.")
        }
        one = torch.ones(width)
        first, second = block.get("ls1.gamma", one), block.get("ls2.gamma", one)
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": block["attn.qkv.weight"],
                "self_attn.in_proj_bias": block["attn.qkv.bias"],
                "self_attn.out_proj.weight": block["attn.proj.weight"] * first[:, None],
                "self_attn.out_proj.bias": block["attn.proj.bias"] * first,
                "linear1.weight": block["mlp.fc1.weight"],
                "linear1.bias": block["mlp.fc1.bias"],
                "linear2.weight": block["mlp.fc2.weight"] * second[:, None],
                "linear2.bias": block["mlp.fc2.bias"] * second,
                **{
                    f"{n}.{p}": block[f"{n}.{p}"]
                    for n in ("norm1", "norm2")
                    for p in ("weight", "bias")
                },
            }
        )
        states = layer.eval()(states)
    return F.layer_norm(states[:, 0], (width,), at("norm.weight"), at("norm.bias"), 1e-6)


def shorten(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    """Leave two blocks of a transformer, for tests of what lies around them."""
    monkeypatch.setitem(FORMS, backbone, FORMS[backbone]._replace(blocks=2))


@pytest.mark.parametrize(("size", "short"), [("[28, 42]", False), ("[518, 518]", True)])
def test_dinov2_small_by_its_published_names(
    weights: Path, monkeypatch: pytest.MonkeyPatch, size: str, *, short: bool
) -> None:
    if short:  # all of the places that it was trained on
        shorten(monkeypatch, "dinov2_vits14")
    held = published("dinov2_vits14")
    config = config_of(put(weights, held, ".pth"), "dinov2_vits14", "dinov2", size)
    with torch.no_grad():
        check_features(config, twin(FORMS["dinov2_vits14"], held, imagenet(images_of(config))))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "short"), [("[32, 48]", False), ("[224, 224]", True)])
def test_biomedclips_image_encoder_by_its_published_names(
    weights: Path, monkeypatch: pytest.MonkeyPatch, size: str, *, short: bool
) -> None:
    if short:
        shorten(monkeypatch, "biomedclip_vitb16")
    held = published("biomedclip_vitb16")
    config = config_of(put(weights, held), "biomedclip_vitb16", "biomedclip", size)
    own = {n.removeprefix("visual.trunk."): v for n, v in held.items()}
    shown = shifted(
        images_of(config),
        {0: 0.48145466, 1: 0.4578275, 2: 0.40821073},
        {0: 0.26862954, 1: 0.26130258, 2: 0.27577711},
    )
    with torch.no_grad():
        check_features(config, twin(FORMS["biomedclip_vitb16"], own, shown))


# --- frozen, by hash -------------------------------------------------------------------------


@pytest.fixture
def dino(weights: Path) -> RunConfig:
    return config_of(put(weights, published("dinov2_vits14")), "dinov2_vits14", "dinov2")


def test_nothing_of_a_base_is_trained_sent_or_drawn(dino: RunConfig) -> None:
    before = torch.random.get_rng_state()
    base = FrozenFeatures(dino.model, image_shape(dino.cohort.images))
    assert not [name for name, value in base.named_parameters() if value.requires_grad]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sorted(initial_weights(dino, 0)) == ["head.0.bias", "head.0.weight"]


def test_an_images_features_do_not_follow_what_is_beside_it(dino: RunConfig) -> None:
    images = images_of(dino)
    both = extract_features(images, dino.model)
    assert torch.equal(both[:1], extract_features(images[:1], dino.model))
    assert torch.equal(
        both[1:], extract_features(torch.stack([9 * images[0], images[1]]), dino.model)[1:]
    )
    assert float(both.norm(dim=1).sub(1).abs().max()) < 1e-3


def test_a_coordinator_without_the_file_says_so_before_the_run(weights: Path) -> None:
    missing = config_of("ab" * 32, "dinov2_vits14", "dinov2")
    assert feature_width(missing.model) == 384
    with pytest.raises(ConfigurationError, match=rf"Put their file into {weights} as {'ab' * 32}"):
        check_backbone(missing)


def test_another_byte_is_refused_with_both_hashes(weights: Path, dino: RunConfig) -> None:
    assert dino.model.start is not None
    path = weights / f"{dino.model.start.sha256}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=rf"SHA-256 .*, expected {dino.model.start.sha256}"
    ):
        check_backbone(dino)


def test_a_file_of_another_base_is_refused_by_name(weights: Path) -> None:
    sha256 = put(weights, dict(theirs().state_dict()))
    with pytest.raises(ConfigurationError, match=r"lacks .*body\.cls_token"):
        check_backbone(config_of(sha256, "dinov2_vits14", "dinov2"))


def test_features_are_kept_by_the_hash_of_the_file(
    weights: Path, tmp_path: Path, dino: RunConfig
) -> None:
    held = published("dinov2_vits14")
    held["blocks.3.ls1.gamma"] = 2 * held["blocks.3.ls1.gamma"]
    other = config_of(put(weights, held), "dinov2_vits14", "dinov2")
    cohort, cache = _Cohort(images_of(dino)), Cache(tmp_path / "cache")
    found = [with_features(cohort, c, cache).items.image for c in (dino, other, dino)]  # type: ignore[arg-type]
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    assert what_is_read(dino) != what_is_read(other)


class _Cohort:
    """What `with_features` asks of a cohort."""

    def __init__(self, image: Tensor) -> None:
        self.items = _Items(image)

    def with_images(self, image: Tensor) -> _Cohort:
        return _Cohort(image)


class _Items:
    def __init__(self, image: Tensor) -> None:
        self.image = image


def test_who_approves_reads_source_licence_and_hash(dino: RunConfig) -> None:
    said = dict(described(dino))["begins from"]
    assert dino.model.start is not None
    for part in ("a paper", "CC BY-NC 4.0", dino.model.start.sha256, "a frozen dinov2_vits14"):
        assert part in said


@pytest.mark.slow
def test_a_bundle_holds_the_base(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, "dinov2_vits14")
    config = config_of(put(weights, published("dinov2_vits14")), "dinov2_vits14", "dinov2")
    network = network_of(config, 0)
    onnx_of(network, config)  # both fail where they compute anything else
    torchscript_of(network, config)
    assert isinstance(Deployed(network, config).features, FrozenFeatures)


# --- what does not go together ---------------------------------------------------------------


FITS = f"""
name: looks
task: {{kind: diagnosis, target: y}}
cohort: {{images: {{size: [28, 28]}}}}
model:
  network: frozen_features
  backbone: dinov2_vits14
  start: {{sha256: {"ab" * 32}, names: dinov2, source: a paper, licence: CC0}}
training: {{rounds: 1}}
privacy: none
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size: [28, 28]": "size: [30, 28]"}, r"multiple of 14 .*Nearest: \[28, 28\]"),
        ({"size: [28, 28]": "size: [28, 28, 28]"}, "is 2-D"),
        ({"names: dinov2": "names: biomedclip"}, "fits biomedclip_vitb16; model.backbone=dinov2"),
        ({"network: frozen_features": "network: small_cnn"}, "goes with network: frozen_features"),
        ({"backbone: dinov2_vits14": "backbone: dinov3"}, "Did you mean dinov2_vits14"),
        ({"backbone: dinov2_vits14": ""}, "brings its own weights; remove model.start"),
        ({"  start:": "  train: head\n  start:"}, "frozen one never is"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_configuration(
    change: Mapping[str, str], said: str
) -> None:
    text = FITS
    for old, new in change.items():
        text = text.replace(old, new)
    with pytest.raises(ConfigurationError, match=said):
        parse_config(text)


def test_a_base_of_a_file_needs_its_file() -> None:
    start = next(line for line in FITS.splitlines() if "start:" in line)
    with pytest.raises(ConfigurationError, match=r"name it in model\.start"):
        parse_config(FITS.replace(start, ""))


def test_volumes_and_colours_go_to_bases_that_take_them() -> None:
    with pytest.raises(ConfigurationError, match="is 3-D"):
        config_of("ab" * 32, "resnet50", "medicalnet", "[32, 32]")
    with pytest.raises(ConfigurationError, match="takes 1 channel"):
        config_of(
            "ab" * 32,
            "swin_unetr",
            "swin_unetr_ssl",
            "[32, 32]",
            more=", channels: 3",
            model="width: 12",
        )
