"""Check of a backbone before a run: whether its file is here, and a bundle could hold it.

Public: check_backbone.
"""

from __future__ import annotations

import functools

from common.bundle.onnx import onnx_of
from common.bundle.torchscript import torchscript_of
from common.config.parts.extension import distribution_of, is_extension
from common.config.run_config import Cohort, Extension, Images, Model, RunConfig
from common.models import FrozenFeatures, image_shape
from common.models.run_network import network_of
from common.platform.errors import ExtensionRefused


def check_backbone(config: RunConfig) -> None:
    """Refuse an extension's backbone that no bundle could hold: ExtensionRefused.

    It is written as a bundle has it, once in a process for the same backbone and images. Of ours,
    that is tested; ConfigurationError where the file of one is not here, or does not fit.
    """
    model = config.model
    if model.network == "frozen_features" and model.start is not None:
        FrozenFeatures(model, image_shape(config.cohort.images))
    if is_extension(model.backbone):
        of_it = (e for e in config.extensions if e.distribution == distribution_of(model.backbone))
        _check(model, config.cohort.images, tuple(of_it))


@functools.lru_cache(maxsize=4)
def _check(model: Model, images: Images | None, pins: tuple[Extension, ...]) -> None:
    config = _run_of(model, images, pins)
    network = network_of(config, 0)
    for file, written in (("ONNX", onnx_of), ("TorchScript", torchscript_of)):
        try:
            written(network, config)
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            message = (
                f"{model.backbone} cannot be written as {file}, so that its run could leave no "
                f"bundle: {type(error).__name__}: {said:.300}. Tell its author."
            )
            raise ExtensionRefused(message) from error


def _run_of(model: Model, images: Images | None, pins: tuple[Extension, ...]) -> RunConfig:
    """Return a run of this backbone and nothing else."""
    return RunConfig.model_validate(
        {
            "name": "check",
            "task": {"kind": "diagnosis", "target": "label"},
            "cohort": Cohort(images=images),
            "model": model,
            "training": {"rounds": 1},
            "privacy": "none",
            "extensions": pins,
        }
    )
