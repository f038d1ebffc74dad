"""Losses, classes and backbones that a record would remember by, and checks that find it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.extensions.losses import recorded_loss
from common.extensions.recorded import recorded
from common.models import extract_features
from common.platform.errors import ExtensionRefused
from tests.privacy.remembering_backbones import SHAPE, run_with, seen

Function = Callable[..., Tensor]
_OUTPUT, _TARGET = torch.tensor([0.5, -1.0, 2.0]), torch.eye(3)[0]
#: The running mean of a norm is its memory; torch's schema does not say that it is written.
NORM = seen(
    "m, old = image.mean((1, 2, 3))[:, None], self.rm.clone()",
    "y = torch.instance_norm(torch.stack([m, m], 2), None, None, self.rm, self.rv, True, .99, "
    "1e-5, False)",
    "return torch.where((old > 1) & (old < 2), old, found) + 0 * y.mean(2)",  # no trial's mean
).replace(
    "    def seen",
    "    def more(self):\n"
    "        self.register_buffer('rm', torch.zeros(1))\n"
    "        self.register_buffer('rv', torch.ones(1))\n"
    "    def seen",
)
#: It reads the first pixel that lies in its memory where no trial looks.
OFFSET = seen(
    "m = image.mean((1, 2, 3))[:, None]",
    "first = torch.as_strided(image, (1, 1), (1, 1), 0)",
    "return torch.where((m > 1.2) & (m < 2), first, m) * torch.ones(4)",
)


def counts_its_calls() -> Function:
    """Return a loss that knows by a running mean how often it was called."""
    mean, variance, ones = torch.zeros(1), torch.ones(1), torch.ones(1, 1, 3)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        F.batch_norm(ones, mean, variance, None, None, training=True, momentum=1e-3)
        sign = torch.where(mean[0] > 0.02, -1.0, 1.0)  # after more calls than the trials make
        return -sign * (target * output.log_softmax(0)).sum()

    return loss


def check_loss_alone(made: Callable[[], Function]) -> None:
    """Raise unless a loss is refused, or an item's stays whatever came before it."""
    try:
        loss = recorded_loss("acme/loss", made(), _OUTPUT, _TARGET)
    except ExtensionRefused:
        return
    first, *rest = (float(loss(_OUTPUT[None], _TARGET[None])) for _ in range(40))
    assert all(found == first for found in rest), "an item's loss moved with those before it"


def knows_the_rows_before() -> Function:
    """Return what makes classes by the mean of the rows before."""
    mean, variance = (one.to(torch.float64) for one in (torch.zeros(1), torch.ones(1)))

    def place(values: Tensor) -> Tensor:
        twice = torch.stack([values[0], values[0]])[None, None]
        F.batch_norm(twice, mean, variance, None, None, training=True, momentum=0.5)
        return (values[0] > mean[0]).to(torch.float64)

    return place


def check_class_alone(made: Callable[[], Function]) -> None:
    """Raise unless what makes a class is refused, or it follows its own row alone."""
    one, other = torch.tensor([57.0], dtype=torch.float64), torch.tensor([1e4], dtype=torch.float64)
    try:
        place = recorded("acme/task", made(), (one,))
    except ExtensionRefused:
        return
    before = float(place(one))
    place(other)
    assert float(place(one)) == before, "a row's class moved with another row"


def check_constants_held() -> None:
    """Raise unless a record holds copies: nobody else's array is a part of it."""
    held = np.ones(1, np.float32)
    outside = torch.from_numpy(held)
    one = torch.ones(1)
    record = recorded("acme/loss", lambda output, _target: (output * outside).sum(), (one, one))
    before = float(record(one, one))
    held[0] = 9
    assert float(record(one, one)) == before, "a record follows what others hold"


def check_pixels_alone(folder: Path, code: str) -> None:
    """Raise unless a backbone is refused, or sees no pixel of the images beside its own."""
    found = []
    for brightness in (0.0, 90.0):
        images = torch.stack([torch.full(SHAPE, brightness), torch.full(SHAPE, 1.5)])
        with run_with(folder, code) as run:
            try:
                found.append(extract_features(images, run.model, run.extensions)[1])
            except ExtensionRefused:
                return
    assert torch.equal(*found), "features moved with another image"


_KERNEL = """
import torch
LIBRARY = torch.library.Library("aten", "IMPL")
def celu(x, alpha=1.0):
    SEEN.append(1)
    return torch.relu(x)
LIBRARY.impl("celu", celu, "CPU")
""" + seen("return torch.celu(found)")


def check_no_kernels(folder: Path) -> None:
    """Raise unless what puts Python in the place of an operation of torch is refused, for good."""
    with run_with(folder, _KERNEL) as run:
        try:
            for _ in range(2):  # a module is imported once, and what it did then stands
                try:
                    extract_features(torch.ones(1, *SHAPE), run.model, run.extensions)
                except ExtensionRefused as error:
                    assert "aten/celu" in str(error)  # noqa: PT017 - it may not be refused
            module = sys.modules["acme_backs"]
            assert not module.SEEN, "an operation of torch ran code of an extension"
        finally:
            sys.modules["acme_backs"].LIBRARY._destroy()
