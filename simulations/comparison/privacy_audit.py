"""Privacy audit in one run: canaries whose membership is guessed.

Half of the canaries are in the site's cohort, by the flip of a coin for each. An attacker who
sees every update guesses which. The more guesses are right, the larger the epsilon that the
pipeline has for certain: a sound one stays below its claim, a broken one goes above it.

Not guaranteed: a lower bound says that a claim is false, never that one is true. Faults of
less than a factor of two in the noise go unseen here; exact tests are for those.

Public: Canaries, canaries, CanaryNet, train, scores, correct_guesses, epsilon_at_least.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.privacy.patient_gradients import LOOP, Backend, Objective
from client.privacy.private_step import patient_optimizer, private_step
from common.config.patches import PatchRules
from common.data.sample import Patients
from common.privacy.accounting import epsilon_of
from common.privacy.noise import NoiseSource
from common.privacy.plan import Mechanism, PrivacyPlan

_NORMAL = statistics.NormalDist()
_HALVINGS = 40
_LARGEST_MU = 40.0
#: Most items of a canary in a step; those that are no bags have one.
_ITEMS = 4


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Made-up patients, each with a direction of its own, and who of them is in."""

    included: Tensor  # (canaries,) bool
    patients: Patients  # those that are in


class CanaryNet(nn.Module):
    """One weight a canary, so that each has a gradient that nobody else has."""

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(canaries))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return one logit an item."""
        del image
        return table @ self.weight


def canaries(count: int, seed: int) -> Canaries:
    """Return canaries, each in or out by a fair coin."""
    coin = torch.Generator().manual_seed(seed)
    included = torch.rand(count, generator=coin) < 0.5
    inside = int(included.sum())
    return Canaries(
        included=included,
        patients=Patients(
            image=torch.zeros(inside, 0),
            table=torch.eye(count)[included],
            target=torch.ones(inside),
            patient=torch.arange(inside),
            pseudonyms=tuple(f"canary {i}" for i in range(inside)),
        ),
    )


def train(
    patients: Patients,
    plan: PrivacyPlan,
    noise: NoiseSource,
    model: nn.Module | int,
    patches: PatchRules | None = None,
) -> list[Tensor]:
    """Take the plan's steps as a site does and return each released update, (canaries,).

    `model` is the number of canaries, or a network of one weight a canary, whose patient's items
    are pooled, or are patches drawn by `patches` of volumes.
    """
    backend = Backend("vmap", model) if isinstance(model, int) else LOOP
    network = CanaryNet(model) if isinstance(model, int) else model
    (weight,) = network.parameters()
    objective = Objective(
        model=network,
        item_loss=_loss,
        patients=patients,
        images_per_patient=_ITEMS,
        patches=patches,
    )
    optimizer = patient_optimizer(torch.optim.SGD([weight], lr=1.0), plan, noise)
    updates = []
    for _ in range(plan.mechanism.steps):
        before = weight.detach().clone()
        private_step(objective, optimizer, noise, backend)
        updates.append((weight.detach() - before).flatten())
    return updates


def scores(updates: list[Tensor]) -> Tensor:
    """Return how far the updates went each canary's way, (canaries,)."""
    return torch.stack(updates).sum(0)


def correct_guesses(score: Tensor, included: Tensor) -> int:
    """Return how many are right when the upper half is guessed to be in.

    The middle is that of the scores, which anybody can see, so no guess peeks at an answer.
    """
    return int(((score > score.median()) == included).sum())


def epsilon_at_least(correct: int, guesses: int, delta: float, confidence: float = 0.95) -> float:
    """Return the epsilon that is exceeded with this confidence, given the right guesses.

    Mahloujifar et al. 2024 (arXiv 2410.22235), algorithm 3, for a guess of every canary and
    Gaussian trade-off curves: so many right guesses would be too rare with a smaller mu.
    """
    low, high = 0.0, _LARGEST_MU
    for _ in range(_HALVINGS):
        mu = (low + high) / 2
        low, high = (mu, high) if _is_too_rare(mu, correct, guesses, 1 - confidence) else (low, mu)
    if low == 0.0:
        return 0.0
    together = Mechanism(
        noise_multiplier=1 / low, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=1.0
    )
    return epsilon_of([together], delta)


def _is_too_rare(mu: float, correct: int, guesses: int, significance: float) -> bool:
    """Return whether a mu-Gaussian pipeline gives so many right guesses that seldom.

    If `correct` or more had at least this probability, the wrong and right guesses of fewer would
    have to sum to more than there are: the recursion follows both from above.
    """
    right = significance * correct / guesses
    wrong = significance * (guesses - correct) / guesses
    for number in range(correct - 1, -1, -1):
        least = max(wrong, _moved(min(right, 1.0), mu))
        right += number / (guesses - number) * (least - wrong)
        wrong = least
        if right + wrong > 1.0:
            return True
    return False


def _moved(probability: float, mu: float) -> float:
    """Return the least that an event of this probability has when a patient is changed."""
    if probability <= 0.0:
        return 0.0
    if probability >= 1.0:
        return 1.0
    return _NORMAL.cdf(_NORMAL.inv_cdf(probability) - mu)


def _loss(output: Tensor, target: Tensor) -> Tensor:
    given = target.to(output.dtype)
    losses = nn.functional.binary_cross_entropy_with_logits(output, given, reduction="none")
    return losses if losses.dim() == 1 else losses.flatten(1).mean(1)
