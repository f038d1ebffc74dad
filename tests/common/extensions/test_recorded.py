"""Records of others' functions: which operations they hold, how they are tried, on which device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional as F

from common.extensions.losses import recorded_loss
from common.extensions.operations import _ALLOWED, _ONLY
from common.extensions.recorded import recorded_network
from common.models.efficientnet_lite import efficientnet_lite0
from common.platform.errors import ExtensionRefused

OUTPUT, TARGET = torch.tensor([0.5, -1.0, 2.0]), torch.eye(3)[0]
WEIGHT = torch.tensor([1.0, 2.0, 3.0])
Loss = Callable[[Tensor, Tensor], Tensor]


def refused(loss: Loss, words: str) -> None:
    with pytest.raises(ExtensionRefused, match=words):
        recorded_loss("acme/loss", loss, OUTPUT, TARGET)


def test_what_is_on_the_list_writes_nothing_and_draws_nothing() -> None:
    for name in _ALLOWED:
        packet, _, overload = name.partition(".")
        target = getattr(getattr(torch.ops.aten, packet), overload)
        assert name == "detach_.default" or not target._schema.is_mutable
        assert torch.Tag.nondeterministic_seeded not in target.tags or name in _ONLY
        # torch's schema does not tell that these are written.
        writes = "running_mean" in str(target._schema) and not name.endswith("_no_training.default")
        assert not writes or name in _ONLY
        assert "unsafe" not in [argument.name for argument in target._schema.arguments]
        assert "as_strided" not in name


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda o, t: -o.log_softmax(0)[t.bool()].sum(), r"picks by .*\(target \* x\)\.sum"),
        (lambda o, t: -o.log_softmax(0)[t.argmax()], r"picks by .*\(target \* x\)\.sum"),
        (lambda o, t: F.cross_entropy(o, t.argmax()), r"picks a class .*\(target \* x\)\.sum"),
        (lambda o, t: -o.log_softmax(0).gather(0, t.argmax()[None])[0], r"picks by values"),
        (lambda o, t: torch.linalg.inv(o * t + torch.eye(3)).sum(), "uses aten.linalg_inv"),
        (lambda o, t: torch.linalg.norm(torch.outer(o, t), 2), "uses aten.linalg_norm"),
        (lambda o, t: (o * t).sum() * (5 // t.long().sum()), "whole numbers, maybe by 0"),
        (lambda o, t: (o * t.as_strided((3,), (1,), 0)).sum(), "uses aten.as_strided"),
        (lambda o, t: F.binary_cross_entropy(o.sigmoid(), t), "uses aten.binary_cross_entropy"),
        (
            lambda o, t: (
                (o * t).sum()
                + torch.segment_reduce(OUTPUT, "sum", lengths=torch.tensor([2, 99]), unsafe=True)[0]
            ),
            "uses aten.segment_reduce",
        ),
    ],
)
def test_what_may_raise_by_a_value_or_read_beyond_is_refused_with_what_to_do(
    loss: Loss, words: str
) -> None:
    refused(loss, words)


def test_a_loss_is_tried_as_it_is_trained() -> None:
    found = recorded_loss("acme/loss", F.cross_entropy, OUTPUT, TARGET)
    outputs, targets = torch.stack([OUTPUT, 2 * OUTPUT]), torch.stack([TARGET, TARGET.flip(0)])
    expected = F.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(found(outputs, targets), expected)
    # Alone it is as it should be; training takes several items at once.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.extensions.recorded.fault_of", lambda *_: None)
        refused(lambda o, t: -o.log_softmax(0)[t.argmax()], r"items at once.*\(target \* x\)")


class _Last(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        found = self.network(image)
        maps: Tensor = found if isinstance(found, Tensor) else found[0]
        return maps.flatten(2).mean(2) if maps.dim() > 3 else maps.flatten(1)


def _swin() -> nn.Module:
    sizes = ((4, 4), (2, 2), (2, 1, 1, 1), (1, 1, 1, 1))
    return SwinTransformer(1, 4, *sizes, spatial_dims=2)  # type: ignore[arg-type]  # two of them


@pytest.mark.parametrize(
    "made",
    [
        lambda: DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1, 1)),
        lambda: ViT(1, 32, 8, hidden_size=8, mlp_dim=8, num_layers=1, num_heads=2, spatial_dims=2),
        pytest.param(_swin, marks=pytest.mark.slow),
        lambda: nn.Sequential(nn.Conv2d(1, 3, 1), efficientnet_lite0()),
    ],
)
def test_usual_backbones_can_be_recorded(made: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, images = _Last(made()).eval(), torch.rand(3, 1, 32, 32)
    record = recorded_network("acme/back", network, images)
    with torch.no_grad():
        assert torch.allclose(record(images), network(images), atol=1e-4)
        # As on another device than that of the recording: what is mixed of two raises there.
        assert record.to("meta")(images.to("meta")).device.type == "meta"


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: -(WEIGHT * t * o.log_softmax(0)).sum(),
        lambda o, t: (torch.arange(3, device=o.device) * o * t).sum(),
        lambda o, t: (torch.tensor([1.0, 2, 3], device=o.device) * o * t).sum(),
        lambda o, t: (WEIGHT.to(o) * o * t).sum(),
        lambda o, t: (WEIGHT.to("cpu") * o * t + o.new_ones(3)).sum(),
        lambda o, t: (torch.ones(3, 3).triu() @ o * t + torch.zeros_like(o)).sum(),
    ],
)
def test_a_loss_computes_on_the_device_that_it_is_trained_on(loss: Loss) -> None:
    found = recorded_loss("acme/loss", loss, OUTPUT, TARGET)
    assert found(OUTPUT[None].to("meta"), TARGET[None].to("meta")).device.type == "meta"
