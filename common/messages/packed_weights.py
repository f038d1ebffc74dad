"""Tensors that stay packed where they lie, and are unpacked one at a time.

A coordinator adds an update up tensor by tensor: it needs to hold one of them, not all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from common.messages.packing import FRAME_VALUES, Encoding, Floats, Layout, Unpacking, decode

if TYPE_CHECKING:  # as in wire.py
    import torch

    Tensors = Mapping[str, torch.Tensor]
else:
    Tensors = Mapping


class PackedWeights(Tensors):
    """The tensors of a message's part, read from their frames anew each time.

    In the order of the layout each frame is unpacked once, and of one frame more than the tensor
    is in memory. The frames must stay what they were.
    """

    def __init__(
        self,
        layout: Layout,
        frames: Iterable[bytes],
        encoding: Encoding,
        again: Callable[[int], bytes],
    ) -> None:
        """Read all frames once; AnswerNotAdmitted unless they hold exactly as many values.

        `again` gives a frame by its number, whenever it is asked.
        """
        import torch

        source, squares, start = Unpacking(layout, frames, encoding), list[float](), 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        for (name, shape), size in zip(layout, source.sizes, strict=True):
            values = torch.from_numpy(source.take(size))
            squares.append(float(torch.dot(values, values)))
            self.shapes[name], self._places[name] = tuple(shape), (start, size)
            start += size
        source.check_empty()
        #: L2 norm of all values, as the sum over tensors.
        self.norm = math.sqrt(sum(squares))
        self._encoding: Encoding = encoding
        self._again = again
        self._values = start
        self._last: tuple[int, Floats] | None = None  # the frame that was unpacked last

    @override
    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        start, size = self._places[name]
        found = np.empty(size, np.float32)
        done = 0
        while done < size:
            number, within = divmod(start + done, FRAME_VALUES)
            part = self._frame(number)[within : within + size - done]
            found[done : done + part.size] = part
            done += part.size
        return torch.from_numpy(found).reshape(self.shapes[name])

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @override
    def __len__(self) -> int:
        return len(self._places)

    def _frame(self, number: int) -> Floats:
        if self._last is None or self._last[0] != number:
            self._last = None  # before the next is made
            count = min(FRAME_VALUES, self._values - number * FRAME_VALUES)
            self._last = number, decode(self._again(number), self._encoding, count)
        return self._last[1]
