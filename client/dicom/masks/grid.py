"""The mask of an image on the network's grid, with all that was drawn, or a reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dicom.masks.lost_structures import Parts, check_kept
from client.dicom.masks.mask_remarks import Tell
from client.dicom.masks.seg_segments import Labels
from client.dicom.reasons import Reason, UnusableFile
from common.config.run_config import Images
from common.data.preprocessing import prepare_labels
from common.data.resampling import even_shape, fit, resize

#: Part of a structure that may lie outside the crop without a word.
_MUCH = 0.1


def on_grid(
    drawn: Labels,
    spacing: tuple[float, ...] | None,
    rules: Images,
    structures: Sequence[str],
    tell: Tell,
) -> Tensor:
    """Return a label map as `prepare_labels`; MASK_LOST where a drawn structure is not on it.

    Parts of a structure that are not on it, and a tenth and more of one outside a crop, are told.
    """
    target = prepare_labels(drawn, spacing, rules)
    grid = f"the run's grid ({' x '.join(map(str, rules.size))}, {rules.fit})"
    if rules.patch is not None:
        grid = f"the run's grid (voxels of {' x '.join(map(str, rules.spacing or ()))} mm)"
    told = check_kept(drawn, structures, lambda parts: _fitted(parts, spacing, rules), grid)
    cut = _cut(drawn, target, spacing, rules, structures) if rules.fit == "crop" else ""
    for detail in (told, cut):
        if detail:
            tell(UnusableFile(Reason.MASK_CUT, detail))
    return target


def _fitted(parts: Parts, spacing: tuple[float, ...] | None, rules: Images) -> Parts:
    """Return numbers on the grid; as floats they are exact up to 2^24."""
    grid = torch.from_numpy(parts)[None].float()
    return fit(grid, spacing, rules, nearest=True)[0].numpy().astype(np.int32)


def _cut(
    drawn: Labels,
    target: Tensor,
    spacing: tuple[float, ...] | None,
    rules: Images,
    structures: Sequence[str],
) -> str:
    """Return how much of which structures the crop leaves out, where it is much."""
    whole = torch.from_numpy(np.ascontiguousarray(drawn))[None].float()
    whole = resize(whole, even_shape(drawn.shape, spacing, rules), nearest=True)
    before = _counts(whole.numpy(), len(structures))
    after = _counts(target.numpy(), len(structures))
    lost = {
        name: 1 - after[number] / before[number]
        for number, name in enumerate(structures, 1)
        if before[number]
    }
    told = [f"{share:.0%} of {name}" for name, share in lost.items() if share > _MUCH]
    return f"{', '.join(told)} lies outside the crop to {rules.size}" if told else ""


def _counts(labels: NDArray[np.generic], structures: int) -> NDArray[np.int64]:
    return np.bincount(labels.astype(np.uint8).reshape(-1), minlength=structures + 1)
