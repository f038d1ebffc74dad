"""Vision transformers as DINOv2 and BiomedCLIP publish them, by the names of their tensors.

    dinov2_vits14       ViT-S/14, LayerScale, positions of 37 x 37 patches (Oquab et al. 2024;
                        dinov2/models/vision_transformer.py of facebookresearch/dinov2)
    biomedclip_vitb16   ViT-B/16, positions of 14 x 14 patches (Zhang et al. 2023; timm's
                        vit_base_patch16_224 as the trunk of open_clip's image encoder)

Public: VisionTransformer, FORMS.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Form(NamedTuple):
    """A transformer's sizes."""

    patch: int  # pixels along a patch's side
    width: int
    heads: int
    blocks: int
    grid: int  # patches along a side of the images that the positions are of
    scaled: bool  # LayerScale (Touvron et al. 2021, equation 6)


FORMS = {
    "dinov2_vits14": Form(14, 384, 6, 12, 37, scaled=True),
    "biomedclip_vitb16": Form(16, 768, 12, 12, 14, scaled=False),
}
_EPSILON = 1e-6  # of their LayerNorms
#: Added to the wanted grid before the positions are resampled, as DINOv2 does.
_ROUNDING = 0.1


class VisionTransformer(nn.Module):
    """(items, 3, rows, columns) in whole patches to the class token's state, (items, width)."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.cls_token = nn.Parameter(torch.zeros(1, 1, form.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + form.grid**2, form.width))
        self.patch_embed = _Patches(form)
        self.blocks = nn.Sequential(*(_Block(form) for _ in range(form.blocks)))
        self.norm = nn.LayerNorm(form.width, eps=_EPSILON)

    def for_size(self, size: tuple[int, ...]) -> None:
        """Resample the positions to the patches of images of a size, once and for all."""
        grid, held = [side // self.form.patch for side in size], self.form.grid
        if grid == [held, held]:
            return
        token, places = self.pos_embed.detach()[:, :1], self.pos_embed.detach()[:, 1:]
        maps = places.transpose(1, 2).reshape(1, -1, held, held)
        scale = [(side + _ROUNDING) / held for side in grid]
        found = F.interpolate(maps, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        self.pos_embed = nn.Parameter(torch.cat([token, found], dim=1))

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, width) of (items, 3, rows, columns)."""
        patches = self.patch_embed(image)
        token = self.cls_token.expand(image.shape[0], -1, -1)
        states: Tensor = self.blocks(torch.cat([token, patches], dim=1) + self.pos_embed)
        state: Tensor = self.norm(states[:, 0])
        return state


class _Patches(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, form.width, form.patch, stride=form.patch)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.proj(image).flatten(2).transpose(1, 2)
        return found


class _Block(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(form.width, eps=_EPSILON)
        self.attn = _Attention(form)
        self.norm2 = nn.LayerNorm(form.width, eps=_EPSILON)
        self.mlp = _Mlp(form)
        self.ls1 = _Scale(form.width) if form.scaled else nn.Identity()
        self.ls2 = _Scale(form.width) if form.scaled else nn.Identity()

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.ls1(self.attn(self.norm1(states)))
        found: Tensor = states + self.ls2(self.mlp(self.norm2(states)))
        return found


class _Attention(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.heads = form.heads
        self.qkv = nn.Linear(form.width, 3 * form.width)
        self.proj = nn.Linear(form.width, form.width)

    def forward(self, states: Tensor) -> Tensor:
        parts = self.qkv(states).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        projected: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return projected


class _Mlp(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.fc1 = nn.Linear(form.width, 4 * form.width)
        self.fc2 = nn.Linear(4 * form.width, form.width)

    def forward(self, states: Tensor) -> Tensor:
        found: Tensor = self.fc2(F.gelu(self.fc1(states)))
        return found


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, states: Tensor) -> Tensor:
        return states * self.gamma
