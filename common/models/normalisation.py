"""Normalisation of one item at a time, in place of BatchNorm."""

from __future__ import annotations

import math

from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def replace_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with GroupNorm in place of every BatchNorm, frozen ones included.

    Opacus' fixer looks only at modules with trainable parameters of their own, so BatchNorm that
    is frozen or has no affine part passes it; those are replaced here.
    """
    from opacus.validators import ModuleValidator

    fixed: nn.Module = ModuleValidator.fix(model)
    for parent in fixed.modules():
        for name, module in parent.named_children():
            if isinstance(module, _BATCH_NORMS):
                setattr(parent, name, _group_norm(module))
    return fixed


def _group_norm(norm: nn.modules.batchnorm._BatchNorm) -> nn.GroupNorm:
    groups = math.gcd(32, norm.num_features)  # 32 groups: Wu & He 2018, section 4.1
    return nn.GroupNorm(groups, norm.num_features, affine=norm.affine)
