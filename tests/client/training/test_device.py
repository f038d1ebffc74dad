"""Which device a site's network runs on."""

from __future__ import annotations

import pytest
import torch

from client.training.device import device_of
from common.platform.errors import ConfigurationError


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("wanted", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_site_gives_the_device_that_it_names(
    monkeypatch: pytest.MonkeyPatch, wanted: str, count: int, device: str
) -> None:
    gpus(monkeypatch, count)
    assert device_of(wanted) == torch.device(device)


@pytest.mark.parametrize(
    ("wanted", "count", "said"),
    [
        ("cuda", 0, "device: cuda, and torch finds no GPU"),
        ("cuda:1", 0, "device: cuda:1, and torch finds no GPU"),
        ("cuda:2", 2, "device: cuda:2, and torch finds 2: cuda:0 to cuda:1"),
    ],
)
def test_a_gpu_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, wanted: str, count: int, said: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(ConfigurationError, match=said):
        device_of(wanted)
