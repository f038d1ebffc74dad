from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.config.network_sizes import SizeRule, size_rule
from common.config.run_config import Cohort, Images, Model, NetworkName, NumberColumn, Table
from common.data.weights import fingerprint, trainable
from common.models import build_model, extract_features, head_parameters, norm_parameters
from common.models.normalisation import replace_batch_norm
from common.platform.errors import ConfigurationError

FLAT, DEEP = (32, 32), (16, 16, 16)
AGE = Table(numbers=(NumberColumn(column="age"), NumberColumn(column="lactate")))

#: (network, input size, width, parameters that are trained with one channel and two outputs)
IMAGE_NETWORKS: list[tuple[NetworkName, tuple[int, ...], int, int]] = [
    ("small_cnn", FLAT, 16, 97_906),
    ("small_cnn", DEEP, 8, 73_290),
    ("resnet18", FLAT, 16, 11_172_162),
    ("efficientnet_b0", FLAT, 16, 4_009_534),
    ("vit", FLAT, 16, 5_382_338),
    ("vit", DEEP, 16, 5_432_258),
]
SEGMENTATION_NETWORKS: list[tuple[NetworkName, tuple[int, ...], int, int]] = [
    ("unet", FLAT, 16, 1_633_988),
    ("unet", DEEP, 8, 302_472),
    ("segresnet", FLAT, 8, 394_986),
    ("segresnet", DEEP, 8, 1_176_186),
    ("dynunet", FLAT, 8, 497_682),
    ("dynunet", DEEP, 8, 353_698),
    ("swin_unetr", FLAT, 12, 1_592_456),
]
WIDE: list[tuple[NetworkName, tuple[int, ...], int, int]] = [
    ("densenet121", FLAT, 16, 6_949_634),
    ("densenet121", (32, 32, 32), 16, 11_244_674),
    ("resnet18", DEEP, 16, 33_161_922),
    ("resnet50", FLAT, 16, 23_509_698),
    ("resnet50", DEEP, 16, 46_163_010),
    ("efficientnet_b0", (32, 32, 32), 16, 4_690_942),
    ("swin_unetr", (32, 32, 32), 12, 4_080_392),
]
ALL = [
    *IMAGE_NETWORKS,
    *SEGMENTATION_NETWORKS,
    *(pytest.param(*case, marks=pytest.mark.slow) for case in WIDE),
]
each_network = pytest.mark.parametrize(("network", "size", "width", "parameters"), ALL)


def cohort_of(size: tuple[int, ...], table: Table | None = None) -> Cohort:
    return Cohort(images=Images.model_validate({"size": size}), table=table)


def items(count: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(seed))


def none(count: int) -> Tensor:
    return torch.zeros(count, 0)


@each_network
def test_a_network_fits_its_input_and_every_parameter_learns(
    network: NetworkName, size: tuple[int, ...], width: int, parameters: int
) -> None:
    segments = network in {"unet", "segresnet", "dynunet", "swin_unetr"}
    model = build_model(Model(network=network, width=width), cohort_of(size), 2, seed=0)
    output = model(items(2, size), none(2))
    assert output.shape == ((2, 2, *size) if segments else (2, 2))
    output.square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert sum(p.numel() for p in trainable(model).values()) == parameters


@each_network
def test_an_items_output_does_not_depend_on_its_batch_peers(
    network: NetworkName, size: tuple[int, ...], width: int, parameters: int
) -> None:
    del parameters
    model = build_model(Model(network=network, width=width), cohort_of(size), 1, seed=0).train()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    image = items(2, size)
    other = torch.cat([image[:1], 9 * image[1:]])
    with torch.no_grad():
        alone, changed = model(image, none(2))[0], model(other, none(2))[0]
    torch.testing.assert_close(alone, changed, rtol=1e-4, atol=1e-5)


@each_network
def test_no_activation_works_in_place_and_no_buffer_learns_from_items(
    network: NetworkName, size: tuple[int, ...], width: int, parameters: int
) -> None:
    del parameters
    model = build_model(Model(network=network, width=width), cohort_of(size), 1, seed=0).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        model(items(2, size), none(2))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    # The modules' own flag, whatever their class.
    flags = [vars(module).get("inplace", False) for module in model.modules()]
    assert not any(flags)


@each_network
def test_head_and_norms_are_named_and_apart_from_the_rest(
    network: NetworkName, size: tuple[int, ...], width: int, parameters: int
) -> None:
    del parameters
    model = build_model(Model(network=network, width=width), cohort_of(size), 1, seed=0)
    head, norm, every = head_parameters(model), norm_parameters(model), set(trainable(model))
    assert head
    assert all(name.startswith("head.") for name in head)
    assert norm
    assert set(norm) | set(head) < every


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    for network in ("small_cnn", "vit", "unet"):
        segment = network == "unet"
        parts = [
            fingerprint(trainable(build_model(Model(network=network), cohort_of(FLAT), 1, seed)))
            for seed in (7, 7, 8)
        ]
        assert parts[0] == parts[1], segment
        assert parts[0] != parts[2]


def test_building_leaves_every_global_generator_as_it_was() -> None:
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    for network in ("small_cnn", "resnet18", "unet", "vit", "frozen_features"):
        build_model(Model(network=network), cohort_of(FLAT), 1, seed=0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def test_the_global_seed_does_not_reach_the_weights() -> None:
    prints = set()
    for outside in (1, 2):
        torch.manual_seed(outside)
        model = build_model(Model(network="resnet18"), cohort_of(FLAT), 1, seed=0)
        prints.add(fingerprint(trainable(model)))
    assert len(prints) == 1


# --- tables and fusion ----------------------------------------------------------------------


def test_a_table_alone_starts_at_zero_and_is_linear_without_hidden_layers() -> None:
    model = build_model(Model(network="table"), Cohort(table=AGE), 3, seed=0)
    table = torch.randn(5, AGE.width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(none(5), table), torch.zeros(5, 3))
    assert {n: tuple(v.shape) for n, v in trainable(model).items()} == {
        "head.0.weight": (3, AGE.width),
        "head.0.bias": (3,),
    }


def test_hidden_layers_stand_between_features_and_output() -> None:
    model = build_model(Model(network="table", hidden=(8, 4)), Cohort(table=AGE), 1, seed=0)
    shapes = [tuple(v.shape) for n, v in trainable(model).items() if n.endswith("weight")]
    assert shapes == [(8, AGE.width), (4, 8), (1, 4)]


@pytest.mark.parametrize("network", ["small_cnn", "resnet18", "vit", "frozen_features"])
def test_late_fusion_listens_to_image_and_table(network: NetworkName) -> None:
    config = Model(network=network, hidden=(6,))
    model = build_model(config, cohort_of(FLAT, AGE), 1, seed=0)
    image = items(2, FLAT)
    if network == "frozen_features":
        image = extract_features(image, config)
        nn.init.normal_(
            model.get_parameter("head.2.weight"), generator=torch.Generator().manual_seed(0)
        )
    image.requires_grad_()
    table = torch.ones(2, AGE.width, requires_grad=True)
    model(image, table).sum().backward()
    assert image.grad is not None
    assert table.grad is not None
    assert image.grad.abs().sum() > 0
    assert table.grad.abs().sum() > 0


def test_dropout_stands_before_the_last_layer() -> None:
    config = Model(network="small_cnn", dropout=0.5)
    model = build_model(config, cohort_of(FLAT), 1, seed=0)
    assert [type(layer) for layer in model.get_submodule("head").children()] == [
        nn.Dropout,
        nn.Linear,
    ]


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "size", "nearest"),
    [
        ("unet", (40, 48), r"\[32, 48\]"),
        ("unet", (3, 32, 32), r"\[8, 32, 32\]"),
        ("dynunet", (36, 48, 36), r"\[40, 48, 40\]|\[32, 48, 32\]"),
        ("segresnet", (30, 32), r"\[32, 32\]"),
        ("densenet121", (16, 64), r"\[32, 64\]"),
        ("vit", (30, 64), r"\[32, 64\]"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(
    network: NetworkName, size: tuple[int, ...], nearest: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"size=\[{size[0]}.*Nearest: ({nearest})"):
        build_model(Model(network=network), cohort_of(size), 1, seed=0)


def test_swin_unetr_says_which_widths_fit() -> None:
    with pytest.raises(ConfigurationError, match=r"model.width=16 .* multiple of 12 .* e.g. 12"):
        build_model(Model(network="swin_unetr"), cohort_of((64, 64)), 1, seed=0)


@pytest.mark.parametrize(
    "network",
    [
        "unet",
        "segresnet",
        "dynunet",
        "densenet121",
        "vit",
        "small_cnn",
        "resnet18",
        "efficientnet_b0",
    ],
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_smallest_size_of_each_rule_works(network: NetworkName, dimensions: int) -> None:
    size = (size_rule(network, dimensions).smallest,) * dimensions
    model = build_model(Model(network=network, width=8), cohort_of(size), 1, seed=0).train()
    assert torch.isfinite(model(items(1, size), none(1))).all()


def test_the_nearest_side_keeps_the_rule() -> None:
    rule = SizeRule(smallest=32, multiple=16)
    assert [rule.nearest(side) for side in (1, 32, 39, 41, 56)] == [32, 32, 32, 48, 64]


def test_a_network_without_images_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"small_cnn needs cohort\.images"):
        build_model(Model(network="small_cnn"), Cohort(table=AGE), 1, seed=0)


# --- normalisation --------------------------------------------------------------------------


def test_frozen_and_plain_batch_norm_are_replaced_as_well() -> None:
    frozen = nn.BatchNorm2d(8)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), frozen, nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8)
    )
    found = [type(module) for module in replace_batch_norm(model).children()]
    assert found == [nn.Conv2d, nn.GroupNorm, nn.GroupNorm, nn.GroupNorm]
