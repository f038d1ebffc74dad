"""The network that a configuration names, with its first weights from an explicit seed.

A new network also needs its name in common/config/training.py and its sizes in
common/config/network_sizes.py; one of your own needs neither (docs/extensions.md).
"""

from __future__ import annotations

import torch
from torch import nn

from common.config.network_sizes import misfit
from common.config.run_config import Cohort, Images, Model
from common.extensions.loading import Pins
from common.models.bags import BagClassifier, pool_of
from common.models.deep_supervision import DeepSegmenter, deep_heads
from common.models.frozen_features import feature_width, image_shape
from common.models.fusion import Classifier, Segmenter, WithAbsence, linear_head, start_at_zero
from common.models.monai_networks import image_body, segmentation_parts, widths_of
from common.models.small_cnn import SmallCnn
from common.models.start_weights import ChannelAffine, begin, fold_norms
from common.platform.errors import ConfigurationError


def build_model(
    model: Model, cohort: Cohort, outputs: int, seed: int, pins: Pins = (), *, start: bool = True
) -> nn.Module:
    """Return a network (image, table) -> (items, outputs[, *spatial]); same seed, same bits.

    The global generator is left as it was. Without images, `image` is (items, 0); without a
    table, `table` is. For frozen_features, `image` is what `extract_features` returned; `pins` are
    the extensions that a backbone may come from. Without `start`, no file of first weights is read:
    for who puts all weights into it. ConfigurationError where there is no such file.
    """
    fault = misfit(model, cohort.images)
    if fault is not None:
        raise ConfigurationError(fault + ".")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _build(model, cohort, outputs, pins)
    if model.network == "frozen_features":
        return finished(network)  # the file is of its base, which is no part of it
    norms = fold_norms(network, model)
    network = finished(network)
    begin(network, model, norms, read=start)
    return network


def finished(network: nn.Module) -> nn.Module:
    """Return the network as per-patient clipping needs it: no BatchNorm, nothing in place."""
    return _without_inplace(_without_batch_norm(network))


def _build(model: Model, cohort: Cohort, outputs: int, pins: Pins) -> nn.Module:
    columns = cohort.table.width if cohort.table is not None else 0
    match model.network:
        case "table":
            return _over_features(model, columns, outputs)
        case "frozen_features":
            width = feature_width(model, image_shape(cohort.images), pins)
            if model.pool is not None:
                return _bag(model, nn.Identity(), width, columns, outputs)
            return _over_features(model, width + columns, outputs)
        case "unet" | "segresnet" | "dynunet" | "swin_unetr":
            return _segmenter(model, _images(model, cohort), outputs)
        case _:
            body, features = _image_body(model, _images(model, cohort))
            if model.pool is not None:
                return _bag(model, body, features, columns, outputs)
            head = linear_head(features + columns, outputs, model.hidden, dropout=model.dropout)
            return Classifier(body, head)


def _segmenter(model: Model, images: Images, outputs: int) -> nn.Module:
    body, head = segmentation_parts(model, images, outputs)
    if not model.deep_supervision:
        return Segmenter(body, head)
    heads = deep_heads(widths_of(model, images), images.dimensions, outputs)
    return DeepSegmenter(body, head, heads)


def _over_features(model: Model, inputs: int, outputs: int) -> Classifier:
    head = linear_head(inputs, outputs, model.hidden, dropout=model.dropout)
    return Classifier(nn.Identity(), start_at_zero(head))


def _bag(model: Model, body: nn.Module, features: int, columns: int, outputs: int) -> BagClassifier:
    """Return a network of one answer a patient; with frozen features it starts at the output 0."""
    assert model.pool is not None  # noqa: S101  # whoever calls asked
    pool, width = pool_of(model.pool, features)
    head = linear_head(width + columns, outputs, model.hidden, dropout=model.dropout)
    frozen = isinstance(body, nn.Identity)
    return BagClassifier(body, pool, start_at_zero(head) if frozen else head)


def _image_body(model: Model, images: Images) -> tuple[nn.Module, int]:
    body, features = _plain_body(model, images)
    if not images.may_lack:
        return body, features
    return WithAbsence(body, images.may_lack), features + len(images.may_lack)


def _plain_body(model: Model, images: Images) -> tuple[nn.Module, int]:
    match model.network:
        case "small_cnn":
            body = SmallCnn(images.dimensions, images.input_channels, model.width)
            return body, body.features
        case "densenet121" | "resnet18" | "resnet50" | "efficientnet_b0" | "vit":
            return image_body(model.network, images)
        case _:
            message = f"model.network={model.network} does not make features of an image."
            raise ConfigurationError(message)


def _images(model: Model, cohort: Cohort) -> Images:
    if cohort.images is None:
        message = f"model.network={model.network} needs cohort.images; give it, or network: table."
        raise ConfigurationError(message)
    return cohort.images


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def _without_batch_norm(network: nn.Module) -> nn.Module:
    if not any(isinstance(module, _BATCH_NORMS) for module in network.modules()):
        return network
    # Imported here: it loads Opacus, which networks without BatchNorm can do without.
    from common.models.normalisation import replace_batch_norm

    return replace_batch_norm(network)


_INPLACE = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.Dropout,
    nn.Dropout2d,
    nn.Dropout3d,
)


def _without_inplace(network: nn.Module) -> nn.Module:
    # A gradient per patient needs the activations as they were.
    for module in network.modules():
        if isinstance(module, _INPLACE):
            module.inplace = False
    return network


_NORMS = (
    ChannelAffine,  # that was a norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


def norm_parameters(network: nn.Module) -> tuple[str, ...]:
    """Return the parameters of all normalisation layers: what FedBN leaves at each site."""
    norms = (module for module in network.modules() if isinstance(module, _NORMS))
    kept = {id(parameter) for norm in norms for parameter in norm.parameters()}
    return tuple(n for n, p in network.named_parameters() if id(p) in kept and p.requires_grad)


def head_parameters(network: nn.Module) -> tuple[str, ...]:
    """Return the parameters after the features: what FedRep and FedPer leave at each site."""
    kinds = Classifier | Segmenter | DeepSegmenter | BagClassifier
    heads = (module.head for module in network.modules() if isinstance(module, kinds))
    kept = {id(parameter) for head in heads for parameter in head.parameters()}
    return tuple(n for n, p in network.named_parameters() if id(p) in kept and p.requires_grad)
