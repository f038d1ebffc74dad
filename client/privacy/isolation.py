"""Isolation of patients from each other where a network holds code of others.

Such code can remember: a mean of the first image, a queue, a cache, a seed that it sets. So each
patient meets the network as the first one would have met it.

    before a patient     every global random generator starts from a seed that is that patient's own
    after a patient      all that the network and its code can reach holds what it held before
                         (client/privacy/reachable_state.py), torch's switches stand as they stood
                         (common/extensions/global_state.py), context variables are as they were
    not put back         client/privacy/reachable_state.py lists it; extension_guard looks for it

Networks of ours hold no such code: they run as they are, with no seed and nothing put back.

Public: Isolation, isolated, seed_of.
"""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from client.privacy.reachable_state import Reachable
from common.extensions.global_state import Switches, drawing_from

_T = TypeVar("_T")
#: Networks that were looked at, and whether they hold code of others.
_FOREIGN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Isolation:
    """A network's state at one moment, which every patient is to meet."""

    def __init__(self, network: nn.Module, *others: object, weights_stay: bool = False) -> None:
        """Keep it; with `weights_stay` what is done alone may change the parameters' values."""
        self._kept: Reachable | None = None
        if holds_code_of_others(network, *others):
            self._kept = Reachable(network, *others, weights_stay=weights_stay)
        self._devices = sorted(
            {p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"}
        )

    @property
    def needed(self) -> bool:
        """Return whether there is code of others, and patients must be apart."""
        return self._kept is not None

    def alone(self, work: Callable[[], _T], seed: int = 0) -> _T:
        """Return what is made of one patient; no trace of it stays, and none was there before."""
        if self._kept is None:
            return work()
        switches = Switches()
        try:
            with (
                drawing_from(seed, self._devices),
                # Left as they were also where the work enters a mode and does not leave it.
                torch.inference_mode(mode=torch.is_inference_mode_enabled()),
                torch.set_grad_enabled(torch.is_grad_enabled()),
            ):
                return contextvars.copy_context().run(work)
        finally:
            switches.put_back()
            self._kept.put_back()


def holds_code_of_others(network: nn.Module, *others: object) -> bool:
    """Return whether a network, or what is used with it, holds code that is not ours."""
    if network not in _FOREIGN:
        _FOREIGN[network] = bool(Reachable(network).packages)
    return _FOREIGN[network] or bool(others and Reachable(*others).packages)


def seed_of(secret: int, pseudonym: str) -> int:
    """Return a patient's own seed: nobody else's presence moves it."""
    digest = hashlib.sha256(f"{secret}/{pseudonym}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
