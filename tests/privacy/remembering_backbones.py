"""Frozen backbones that remember: in every place that there is, and a check that finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from common.config.run_config import RunConfig, parse_config
from common.extensions.pinning import pinned
from common.models import FrozenFeatures, extension_backbone, frozen_features
from common.platform.errors import ExtensionRefused
from tests.extensions import on_path, written

NAME = "acme-backs/it"
SHAPE = (1, 16, 16)
#: How often another image is shown: more than a memory that waits for some calls counts.
_SHOWN = 12
CONFIG = """
name: example
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}}
model: {network: frozen_features, backbone: acme-backs/it}
training: {rounds: 1}
privacy: none
"""
_HEAD = """
import contextvars, os, random, tempfile
import torch
from pathlib import Path
from pydantic import BaseModel
from torch import nn
from common.extensions.contract import *

class Nothing(BaseModel, extra="forbid"): pass
SEEN, FIRST, LAST, MEAN = [], {}, torch.zeros(4), contextvars.ContextVar("mean", default=None)

class It(nn.Module):
    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(1, 4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.last, self.plain, self.calls = None, torch.zeros(4), 0
        self.more()

    def more(self): pass

    def train(self, mode=True): return super().train(mode)

    def maps(self, image): return self.filters(image).relu()

    def forward(self, image): return self.seen(self.maps(image).mean((2, 3)), image)

    def seen(self, found, image): return found
"""
_TAIL = "it = BackboneExtension(arguments=Nothing, build=lambda given, shapes: It())\n"


def seen(*lines: str, before: str = "") -> str:
    """Return code of a backbone with these lines after its features, `found` of an `image`."""
    body = "".join(f"        {line}\n" for line in lines)
    return f"{before}\nclass It(It):\n    def seen(self, found, image):\n{body}"


_BEGIN = "class It(It):\n"
#: A line that ends a backbone whose last image it knows as `last`.
_ADDED = "return found if last is None else found + last"
_OF_IT = "found.detach().mean(0)"
REMEMBERED = {
    "an attribute": seen(f"last, self.last = self.last, {_OF_IT}", _ADDED),
    "an attribute, after many calls": seen(
        "self.calls += 1", f"last, self.last = self.last, {_OF_IT}",
        "return found if self.calls < 9 else found + last",
    ),
    "a tensor that is no buffer": seen(
        "last = self.plain.clone()", f"self.plain.copy_({_OF_IT})", _ADDED
    ),
    "a class": seen(
        f"last, type(self).kept = getattr(type(self), 'kept', None), {_OF_IT}", _ADDED
    ),
    "a global list": seen(
        "last = SEEN[-1] if SEEN else None", f"SEEN.append({_OF_IT})", _ADDED
    ),
    "a global tensor": seen("last = LAST.clone()", f"LAST.copy_({_OF_IT})", _ADDED),
    "the first image, in a global": seen(
        f"return found + FIRST.setdefault(tuple(image.shape[1:]), {_OF_IT})"
    ),
    "a closure": seen(
        "last, _ = told(), " f"kept({_OF_IT})", _ADDED,
        before="def made():\n"
        "    last = None\n"
        "    def kept(value):\n"
        "        nonlocal last\n"
        "        last = value\n"
        "    return (lambda: last), kept\n"
        "told, kept = made()",
    ),
    "a default argument": seen(
        f"last, _ = kept(), kept({_OF_IT})", _ADDED,
        before="def kept(value=None, held=[]):\n"
        "    last = held[-1] if held else None\n"
        "    if value is not None: held.append(value)\n"
        "    return last",
    ),
    "a context variable": seen(f"last, _ = MEAN.get(), MEAN.set({_OF_IT})", _ADDED),
    "a buffer": seen(f"self.mean.mul_(0.9).add_({_OF_IT})", "return found + self.mean"),
    "a buffer that is put in its place": seen(
        "last = self.mean", f"self.mean = {_OF_IT}", _ADDED
    ),
    "a weight": seen(f"self.filters.bias.data.add_({_OF_IT})", "return found"),
    "running statistics": seen(
        "maps = self.maps(image)", "self.norm.train()(maps)",
        "return self.norm.eval()(maps).mean((2, 3))",
    ).replace(_BEGIN, _BEGIN + "    def more(self): self.norm = nn.BatchNorm2d(4)\n"),
    "torch's generator": seen(
        "drawn = torch.rand(4)", "torch.manual_seed(int(1e4 * image.detach().mean()))",
        "return found + drawn",
    ),
    "how much was drawn": seen("return found + torch.rand(4)"),
    "Python's generator": seen("return found + random.random()"),
    "an environment variable": seen(
        "last = float(os.environ.get('WARDROUND_TEST_LAST', '0'))",
        "os.environ['WARDROUND_TEST_LAST'] = str(float(image.detach().mean()))", _ADDED,
    ),
    "a file": seen(
        "last = torch.load(KEPT) if KEPT.exists() else None", f"torch.save({_OF_IT}, KEPT)", _ADDED,
        before="KEPT = Path(tempfile.mkdtemp()) / 'kept'",
    ),
    "a file of numbers": seen(
        "last = float(KEPT.read_text()) if KEPT.exists() else None",
        "KEPT.write_text(str(float(image.detach().mean())))", _ADDED,
        before="KEPT = Path(tempfile.mkdtemp()) / 'kept'",
    ),
    "a hook of its own": seen("return found").replace(
        _BEGIN,
        "def hook(module, given, found):\n"
        "    last, module.last = module.last, found.detach().mean((0, 2, 3))[:, None, None]\n"
        "    return found if last is None else found + last\n"
        + _BEGIN + "    def more(self):\n"
        "        self.filters.last = None\n"
        "        self.filters.register_forward_hook(hook)\n",
    ),
    "a hook of gradients": seen(
        "found = 1 * found",
        "if found.requires_grad: found.register_hook(lambda slope: SEEN.append(1))",
        "return found + len(SEEN)",
    ),
    "a backward pass of its own": seen(
        "return Kept.apply(found) + len(SEEN)",
        before="class Kept(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(context, found): return 1 * found\n"
        "    @staticmethod\n"
        "    def backward(context, slope):\n"
        "        SEEN.append(1)\n"
        "        return slope",
    ),
    "an operation of its own": seen(
        "return kept(found)",
        before="@torch.library.custom_op(f'acme{id(SEEN)}::kept', mutates_args=())\n"
        "def kept(found: torch.Tensor) -> torch.Tensor:\n"
        "    last = SEEN[-1] if SEEN else torch.zeros(4)\n"
        "    SEEN.append(found.detach().mean(0))\n"
        "    return found + last\n"
        "kept.register_fake(lambda found: torch.empty_like(found))\n"
        "kept.register_autograd(lambda context, slope: slope)",
    ),
    "memory that nobody wrote": seen(
        "held = torch.empty(4)", "last = held.clone()", f"held.copy_({_OF_IT})", _ADDED
    ),
}  # fmt: skip
#: Where code remembers past its record, so that there is one.
RECORDED = (
    "an attribute", "an attribute, after many calls", "a class", "a global list", "a closure",
    "a default argument", "a context variable", "a buffer that is put in its place",
    "Python's generator", "a hook of its own", "a hook of gradients", "a backward pass of its own",
)  # fmt: skip
#: Where trials of three calls without a gradient find nothing. The record has nothing of it.
HARMLESS = frozenset({
    "an attribute, after many calls", "a hook of gradients", "a backward pass of its own"
})  # fmt: skip


@contextmanager
def run_with(folder: Path, code: str = "", config: str = CONFIG) -> Iterator[RunConfig]:
    """Install a backbone; yields a run that takes it, of which nothing was recorded yet."""
    extension_backbone._ready.cache_clear()
    frozen_features._network.cache_clear()
    points = {"backbones": ["it"]}
    with on_path(written(folder, "acme-backs", _HEAD + code + _TAIL, points)):
        yield pinned(parse_config(config))


def features_of(run: RunConfig) -> FrozenFeatures:
    """Return what makes features of a run's images."""
    return FrozenFeatures(run.model, SHAPE, run.extensions)


def check_features_alone(folder: Path, code: str) -> None:
    """Raise unless the backbone is refused, or an image's features follow no other image.

    Whichever is seen first, and after many. Nor does its gradient, which explanations ask for.
    """
    drawn = torch.Generator().manual_seed(1)
    image = torch.rand(1, *SHAPE, generator=drawn)
    other = 3 * torch.rand(1, *SHAPE, generator=drawn)
    try:
        alone, *_ = _told(folder, code, [image])
        *_, after = _told(folder, code, [image, *[other] * _SHOWN, image])
        _, second = _told(folder, code, [other, image])
    except ExtensionRefused:
        return
    for found in (after, second):
        assert all(map(torch.equal, found, alone)), "features moved with another image"


def _told(folder: Path, code: str, images: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return features and gradient of images, in turn, of a backbone that nobody called."""
    with run_with(folder, code) as run:
        network = features_of(run)
        return [_answer(network, image) for image in images]


def _answer(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    image = image.clone().requires_grad_()
    with torch.enable_grad():
        features = network(image)
        (slope,) = torch.autograd.grad(features.sum(), image)
    return features.detach().clone(), slope
