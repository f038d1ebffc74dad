"""Order of answers, independent of how they arrive.

Floating-point addition is not associative, so a sum in the order of arrival would differ
from run to run. An update that comes before its turn waits on disk, not in memory: the
coordinator never holds more than the update that it adds (and disk holds fewer than the
sites). Sites in one process answer in order, and nothing is ever written.

Late answers are told in server/rounds/late_answers.py, wrong ones in
server/rounds/update_admission.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from common.data.weights import Weights
from common.messages.packed_weights import PackedWeights
from common.messages.wire import Refusal, SiteUpdate
from server.rounds.update_admission import NotAdmitted

Answer = SiteUpdate | Refusal | NotAdmitted


def in_order(answers: Iterator[Answer], order: Sequence[str]) -> Iterator[Answer]:
    """Yield admitted updates in the order of their sites; everything else at once.

    Each site of `order` updates once at most. A site that never answers is passed over
    when the answers end.
    """
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        waiting: dict[str, Waiting] = {}
        turn = 0
        declined: set[str] = set()
        for answer in answers:
            if not isinstance(answer, SiteUpdate):
                if isinstance(answer, Refusal) or answer.used_up:
                    declined.add(answer.site)
                yield answer
            elif answer.site == order[turn]:
                yield answer
                turn += 1
            else:
                waiting[answer.site] = Waiting(answer, Path(folder) / f"{len(waiting)}-{turn}")
            # A generator keeps its locals while it waits: without this, two updates live.
            del answer
            while turn < len(order) and (order[turn] in waiting or order[turn] in declined):
                if order[turn] in waiting:
                    yield waiting.pop(order[turn]).read()
                turn += 1
        for site in order[turn:]:
            if site in waiting:
                yield waiting.pop(site).read()


class Waiting:
    """An update on disk."""

    def __init__(self, update: SiteUpdate, path: Path) -> None:
        self._bare = replace(update, delta={}, control_delta=None)
        self._delta = _put_down(path.with_suffix(".delta"), update.delta)
        control = update.control_delta
        self._control = (
            None if control is None else _put_down(path.with_suffix(".control"), control)
        )

    def read(self) -> SiteUpdate:
        """Return the update as it came, bit for bit."""
        control = None if self._control is None else self._control()
        return replace(self._bare, delta=self._delta(), control_delta=control)


def _put_down(path: Path, weights: Weights) -> Callable[[], Weights]:
    """Write tensors to a file, unless they are on disk as they came; return what reads them."""
    if isinstance(weights, PackedWeights):
        return lambda: weights
    return _Stored(path, weights).taken


class _Stored:
    """Tensors end to end in a file, written and read without a copy in memory."""

    def __init__(self, path: Path, weights: Weights) -> None:
        self._path = path
        self._places = [(name, value.shape, value.dtype) for name, value in weights.items()]
        with path.open("wb") as file:
            for value in weights.values():
                file.write(value.contiguous().numpy().data)

    def taken(self) -> dict[str, Tensor]:
        """Return the tensors and remove the file."""
        found = {}
        with self._path.open("rb") as file:
            for name, shape, dtype in self._places:
                found[name] = torch.empty(shape, dtype=dtype)
                file.readinto(found[name].numpy().data)
        self._path.unlink()
        return found
