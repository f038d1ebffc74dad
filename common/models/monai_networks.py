"""MONAI's networks, as bodies and heads; MONAI itself is loaded only when one is asked for."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from common.config.network_sizes import levels, vit_patch
from common.config.run_config import Images, Model
from common.platform.errors import ConfigurationError

ImageNetwork = Literal["densenet121", "resnet18", "resnet50", "efficientnet_b0", "vit"]
SegmentationNetwork = Literal["unet", "segresnet", "dynunet", "swin_unetr"]


def image_body(network: ImageNetwork, images: Images) -> tuple[nn.Module, int]:
    """Return a module (items, channel, *spatial) -> (items, features), and its features."""
    match network:
        case "densenet121":
            return _densenet121(images)
        case "resnet18" | "resnet50":
            return _resnet(network, images)
        case "efficientnet_b0":
            return _efficientnet_b0(images)
        case "vit":
            return _vit(images)


def _taken(network: nn.Module, place: str) -> nn.Module:
    """Take a layer out of a network, and let its input pass in its place."""
    layer = network.get_submodule(place)
    network.set_submodule(place, nn.Identity())
    return layer


def _inputs(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear)  # noqa: S101  # MONAI's own last layer
    return layer.in_features


def _densenet121(images: Images) -> tuple[nn.Module, int]:
    from monai.networks.nets.densenet import DenseNet121

    network = DenseNet121(images.dimensions, images.input_channels, out_channels=1)
    return network, _inputs(_taken(network, "class_layers.out"))


def _resnet(name: Literal["resnet18", "resnet50"], images: Images) -> tuple[nn.Module, int]:
    from monai.networks.nets.resnet import resnet18, resnet50

    make = resnet18 if name == "resnet18" else resnet50
    network = make(
        pretrained=False,
        spatial_dims=images.dimensions,
        n_input_channels=images.input_channels,
        feed_forward=False,
    )
    return network, network.in_planes


def _efficientnet_b0(images: Images) -> tuple[nn.Module, int]:
    from monai.networks.nets.efficientnet import EfficientNetBN

    network = EfficientNetBN(
        "efficientnet-b0",
        pretrained=False,
        spatial_dims=images.dimensions,
        in_channels=images.input_channels,
        num_classes=1,
    )
    features = _inputs(_taken(network, "_fc"))
    _taken(network, "_dropout")
    # The plain form: it can be exported, and mapped over patients.
    network.set_swish(memory_efficient=False)
    _without_drop_connect(network)
    return network, features


def _without_drop_connect(network: nn.Module) -> None:
    # It draws from the global generator; a resumed run must repeat an uninterrupted one.
    from monai.networks.nets.efficientnet import MBConvBlock

    for block in network.modules():
        if isinstance(block, MBConvBlock):
            block.drop_connect_rate = 0.0


class ViTFeatures(nn.Module):
    """MONAI's ViT without its head: the mean of the patches' last states."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, features) of (items, channel, *spatial)."""
        states: Tensor = self.network(image)[0]
        return states.mean(dim=1)


def _vit(images: Images) -> tuple[nn.Module, int]:
    """Return ViT-Ti (Touvron et al. 2021, table 1): hospitals do not have data for ViT-B."""
    from monai.networks.nets.vit import ViT

    network = ViT(
        in_channels=images.input_channels,
        img_size=images.size,
        patch_size=vit_patch(images.dimensions),
        hidden_size=192,
        mlp_dim=768,
        num_layers=12,
        num_heads=3,
        spatial_dims=images.dimensions,
    )
    for name, parameter in network.named_parameters():
        # Made by every block, used by none without cross attention: no gradient ever comes.
        if "cross_attn" in name:
            parameter.requires_grad_(False)
    return ViTFeatures(network), 192


def segmentation_parts(model: Model, images: Images, outputs: int) -> tuple[nn.Module, nn.Module]:
    """Return a body that keeps the size and a head that gives each voxel its outputs."""
    match model.network:
        case "unet":
            return _unet(model, images, outputs)
        case "segresnet":
            return _segresnet(model, images, outputs)
        case "dynunet":
            return _dynunet(model, images, outputs)
        case "swin_unetr":
            return _swin_unetr(model, images, outputs)
        case _:
            message = f"model.network={model.network} does not segment; choose unet or segresnet."
            raise ConfigurationError(message)


def _norm(width: int) -> tuple[str, dict[str, int]]:
    # All levels are width x 2^n, so what divides the width divides them.
    return "group", {"num_groups": math.gcd(8, width)}


def widths_of(model: Model, images: Images) -> list[int]:
    """Return the channels of each level of UNet and DynUNet, the full resolution first."""
    return [model.width * 2**level for level in range(levels(images.dimensions))]


def _unet(model: Model, images: Images, outputs: int) -> tuple[nn.Module, nn.Module]:
    """Return MONAI's residual UNet and a 1 x 1 head.

    Its own last level works in as many channels as there are outputs: one, for one structure.
    Here it keeps `width` channels to the end.
    """
    from monai.networks.nets.unet import UNet

    widths = widths_of(model, images)
    body = UNet(
        spatial_dims=images.dimensions,
        in_channels=images.input_channels,
        out_channels=model.width,
        channels=widths,
        strides=[2] * (len(widths) - 1),
        num_res_units=2,
        norm=_norm(model.width),
        dropout=model.dropout,
    )
    convolution = nn.Conv2d if images.dimensions == 2 else nn.Conv3d
    return body, nn.Sequential(nn.PReLU(), convolution(model.width, outputs, kernel_size=1))


def _segresnet(model: Model, images: Images, outputs: int) -> tuple[nn.Module, nn.Module]:
    from monai.networks.nets.segresnet import SegResNet

    network = SegResNet(
        spatial_dims=images.dimensions,
        init_filters=model.width,
        in_channels=images.input_channels,
        out_channels=outputs,
        dropout_prob=model.dropout or None,
        norm=_norm(model.width),
    )
    return network, _taken(network, "conv_final")


def _dynunet(model: Model, images: Images, outputs: int) -> tuple[nn.Module, nn.Module]:
    from monai.networks.nets.dynunet import DynUNet

    widths = widths_of(model, images)
    network = DynUNet(
        spatial_dims=images.dimensions,
        in_channels=images.input_channels,
        out_channels=outputs,
        kernel_size=[3] * len(widths),
        strides=[1] + [2] * (len(widths) - 1),
        upsample_kernel_size=[2] * (len(widths) - 1),
        filters=widths,
        dropout=model.dropout or None,
        norm_name=_norm(model.width),
        res_block=True,
    )
    return network, _taken(network, "output_block")


def _swin_unetr(model: Model, images: Images, outputs: int) -> tuple[nn.Module, nn.Module]:
    from monai.networks.nets.swin_unetr import SwinUNETR

    network = SwinUNETR(
        in_channels=images.input_channels,
        out_channels=outputs,
        feature_size=model.width,
        norm_name=_norm(model.width),
        drop_rate=model.dropout,
        spatial_dims=images.dimensions,
    )
    return network, _taken(network, "out")
