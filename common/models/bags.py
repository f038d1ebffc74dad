"""Bags: all pictures of a patient together, one answer a patient (`model.pool`).

A bag is given to the network by itself, in training as in every measurement: nothing of another
patient is in the same call, so that no softmax and no mean can reach over a batch, and a patient's
output and gradient have the same bits whoever else is there.

Public: BagClassifier, answered, of_each, pools, pool_of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from common.data.sample import Batch

PoolName = Literal["mean", "max", "attention"]
#: Width of what attention weighs, and of what it weighs by.
_HIDDEN, _GATE = 32, 16
#: Pictures that go through the body at once where no gradient is wanted.
_CHUNK = 64


class BagClassifier(nn.Module):
    """A body that makes features of a picture, a pool over all of a patient, and a head."""

    def __init__(self, body: nn.Module, pool: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.pool = pool
        self.head = head

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return (1, outputs) of one patient's (items, channel, *spatial) and (items, columns)."""
        pooled: Tensor = self.pool(self._features(image))
        outputs: Tensor = self.head(torch.cat([pooled, table.mean(dim=0, keepdim=True)], dim=1))
        return outputs

    def attention(self, image: Tensor) -> Tensor:
        """Return how much each of one patient's pictures counts, (items,); they add up to 1."""
        if not isinstance(self.pool, AttentionPool):
            return torch.full((len(image),), 1 / len(image))
        scores = [self.pool.embedded(features)[1] for features in self._features(image)]
        return torch.cat(scores).flatten().softmax(dim=0)

    def _features(self, image: Tensor) -> Iterator[Tensor]:
        """Yield (some items, features); a few at a time where memory is all that counts."""
        # An export is of any number of items, which no comparison may fix.
        exported = torch.compiler.is_compiling()
        if exported or torch.is_grad_enabled() or len(image) <= _CHUNK:
            yield self.body(image)
            return
        for some in torch.split(image, _CHUNK):
            yield self.body(some)


class MeanPool(nn.Module):
    """The mean of each feature."""

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        """Return (1, features) of parts of one patient's items, (some items, features)."""
        total, items = torch.zeros(()), torch.zeros(())
        for features in parts:
            total = total + features.sum(dim=0, keepdim=True)
            items = items + torch.ones_like(features[:, :1]).sum()
        return total / items


class MaxPool(nn.Module):
    """The largest value of each feature."""

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        """Return (1, features) of parts of one patient's items, (some items, features)."""
        most = torch.full((), -torch.inf)
        for features in parts:
            most = torch.maximum(most, features.amax(dim=0, keepdim=True))
        return most


class AttentionPool(nn.Module):
    """Gated attention (Ilse et al. 2018, equations 8 and 9): a weighted mean of the items.

    The weights are a softmax within the patient, so they add up to 1 however many items there
    are, and the scale of a gradient does not follow their number.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(features, _HIDDEN)
        self.content = nn.Linear(_HIDDEN, _GATE)
        self.gate = nn.Linear(_HIDDEN, _GATE)
        self.score = nn.Linear(_GATE, 1)

    def embedded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (items, hidden) and the score of each, (items, 1)."""
        hidden = torch.relu(self.embedding(features))
        gated = torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden))
        return hidden, self.score(gated)

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        """Return (1, hidden) of parts of one patient's items, (some items, features).

        Softmax as a stream: what was added so far shrinks when a larger score comes.
        """
        most = torch.full((), -torch.inf)
        total, weights = torch.zeros(()), torch.zeros(())
        for features in parts:
            hidden, score = self.embedded(features)
            # Of no effect on the result, and so on no gradient: it only keeps exp finite.
            higher = torch.maximum(most, score.detach().amax(dim=0, keepdim=True))
            shrunk, weight = (most - higher).exp(), (score - higher).exp()
            total = total * shrunk + (weight * hidden).sum(dim=0, keepdim=True)
            weights = weights * shrunk + weight.sum(dim=0, keepdim=True)
            most = higher
        return total / weights


def pool_of(name: PoolName, features: int) -> tuple[nn.Module, int]:
    """Return the pool, and how many features come out of it."""
    match name:
        case "mean":
            return MeanPool(), features
        case "max":
            return MaxPool(), features
        case "attention":
            return AttentionPool(features), _HIDDEN


def pools(network: nn.Module) -> bool:
    """Return whether the network makes one answer of all items that it is given."""
    return any(isinstance(module, BagClassifier) for module in network.modules())


def answered(network: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """Return a network's outputs, and the batch of what they are of.

    One output an item, and the batch as it is. Where the network pools: one a patient, each asked
    alone, and a batch of one item a patient, with its first item's target (items of a patient
    share it) and no images.
    """
    if not pools(network):
        return network(batch.image, batch.table), batch
    patients = int(batch.patient.max()) + 1 if len(batch.patient) else 0
    bags = [torch.nonzero(batch.patient == number).flatten() for number in range(patients)]
    found = [network(batch.image[items], batch.table[items]) for items in bags]
    first = torch.stack([items[0] for items in bags])
    return torch.cat(found), Batch(
        image=batch.image[:0],
        table=batch.table[first],
        target=batch.target[first],
        patient=torch.arange(patients),
        weight=torch.ones(patients),
    )


def of_each(network: nn.Module, image: Tensor, table: Tensor) -> Tensor:
    """Return one output an item, each as the only one of its patient: (items, outputs)."""
    if not pools(network):
        found: Tensor = network(image, table)
        return found
    each = zip(torch.split(image, 1), torch.split(table, 1), strict=True)
    return torch.cat([network(*one) for one in each])
