"""Error for an image of which no network's input can be made."""

from __future__ import annotations

from typing import Literal

Fault = Literal["too large", "not finite", "no geometry"]


class UnfitImage(ValueError):
    """No network's input can be made of an image; `fault` says of which kind the reason is."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
