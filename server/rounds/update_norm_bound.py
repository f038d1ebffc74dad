"""Bound on updates: one that is longer is shortened.

    with privacy                 what public constants allow: clip norm, noise, divisor, learning
                                 rate, steps, number of weights (`public_bound`)
    mean, scaffold, flower       aggregation.largest_over_median x the usual norm: the median of
                                 this round's updates, or of an earlier round's if it was longer
    fewer than three updates     not by each other: of two nobody can say which is wrong
    median, trimmed_mean, krum   they compare the sites themselves
    ten times over a bound       left out: training gives nothing like it
    SCAFFOLD's control change    what its own update explains (Karimireddy et al. 2020, option II)

So one site of four moves the mean by half of what a usual site does, in whatever direction, and no
further; it can do that in every round (docs/limits.md). Earlier rounds count because near the end
of a run most sites hardly move any more, and an honest one that still does is not to be shortened.

Public: Hearer, bounded, public_bound.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from common.config.learning_rate import learning_rate
from common.config.run_config import PatientPrivacy, RunConfig, Training
from common.data.weights import Weights
from common.messages.wire import SiteUpdate, TrainRequest
from common.privacy.noise_calibration import make_plan
from server.rounds.answer_order import Answer, Waiting, in_order
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted, norm

#: Fewer updates have no median that one of them could not set.
_FEWEST = 3
#: An update so many times longer than it may be is left out.
_ABSURD = 10.0
#: A control change is explained by its update but for rounding.
_ROUNDING = 1.01
#: A site may have more patients than were agreed in public; the bound allows for so many times.
_MORE_PATIENTS = 2.0
#: Beyond an expectation m of patients in a step lie 2m + 12 with a probability below e^-8.
_MORE_DRAWN = 12.0
#: Probability that noise of one step is longer than the bound allows for.
_NOISE_TAIL = 1e-6
_ADAM_BETAS = (0.9, 0.999)


class Hearer(Protocol):
    """Who keeps the round's record."""

    def shortened(self, site: str, how: str) -> None:
        """Hear that a site's update counts for less than it came."""
        ...

    def usual(self, length: float) -> None:
        """Hear the median norm of the round's updates."""
        ...


def bounded(
    answers: Iterator[Answer],
    request: TrainRequest,
    order: Sequence[str],
    longest: float,
    hearer: Hearer,
) -> Iterator[Answer]:
    """Yield admitted updates in the order of their sites, none longer than its bound.

    `longest` is the longest median of earlier rounds. One update is in memory at a time: a median
    is known when all norms are, so updates wait for it on disk. What is not shortened comes back
    bit for bit.
    """
    config = request.config
    if config.privacy != "none":
        return in_order(_by_constants(answers, request, hearer), order)
    factor = config.aggregation.largest_over_median
    alone = config.aggregation.rule in {"median", "trimmed_mean", "krum", "multi_krum"}
    if factor is None or alone or len(order) < _FEWEST:
        return in_order(answers, order)
    return _by_median(answers, request, order, longest, hearer)


def _by_constants(
    answers: Iterator[Answer], request: TrainRequest, hearer: Hearer
) -> Iterator[Answer]:
    for answer in answers:
        passed = [answer]
        if isinstance(answer, SiteUpdate):
            most = public_bound(request, answer.site)
            passed = [_limited(answer, request, most, hearer)]
        del answer  # a generator keeps its locals while it waits
        yield passed.pop()


def _by_median(
    answers: Iterator[Answer],
    request: TrainRequest,
    order: Sequence[str],
    longest: float,
    hearer: Hearer,
) -> Iterator[Answer]:
    with tempfile.TemporaryDirectory(prefix="wardround-") as folder:
        waiting: dict[str, Waiting] = {}
        lengths: list[float] = []
        for answer in answers:
            if not isinstance(answer, SiteUpdate):
                yield answer
                continue
            lengths.append(norm(answer.delta))
            waiting[answer.site] = Waiting(answer, Path(folder) / str(len(waiting)))
            del answer
        most, factor = math.inf, request.config.aggregation.largest_over_median
        if factor is not None and len(lengths) >= _FEWEST:
            usual = statistics.median(lengths)
            hearer.usual(usual)
            most = factor * max(usual, longest)
        for site in order:
            if site in waiting:
                yield _limited(waiting.pop(site).read(), request, most, hearer)


def _limited(
    update: SiteUpdate, request: TrainRequest, most: float, hearer: Hearer
) -> SiteUpdate | NotAdmitted:
    """Return an update no longer than `most`, its control change as it explains."""
    length = norm(update.delta)
    if length > _ABSURD * most:
        return NotAdmitted(
            site=update.site,
            fault=Fault.TOO_LARGE,
            used_up=True,
            detail=f"norm={length:.4g}, expected at most {most:.4g} in this round",
        )
    if length > most:
        hearer.shortened(update.site, f"norm {length:.4g}, counts as {most:.4g}")
        update = replace(update, delta=_scaled(update.delta, most / length))
    if update.control_delta is None or request.control is None:
        return update
    rules = request.config.training
    reach = learning_rate(rules, request.round) * rules.local_steps
    explained = _ROUNDING * (norm(request.control) + min(length, most) / reach)
    changed = norm(update.control_delta)
    if changed <= explained:
        return update
    hearer.shortened(update.site, f"control norm {changed:.4g}, counts as {explained:.4g}")
    return replace(update, control_delta=_scaled(update.control_delta, explained / changed))


def _scaled(weights: Weights, factor: float) -> Weights:
    return {name: value * factor for name, value in weights.items()}


# --- public constants ------------------------------------------------------------------------


def public_bound(request: TrainRequest, site: str) -> float:
    """Return the longest update that a private round of an honest site has, but for rare noise.

    A step's gradient is (sum + noise) / divisor with |sum| <= patients in it x clip_norm. Plain
    steps take a gradient learning rate x (1 + momentum + ... ) times, with c_j for the j-th last;
    sums add up by sum(c), noise of independent steps by sqrt(sum(c^2)), and a Gaussian vector of d
    values is no longer than sqrt(d) + sqrt(2 ln 1/p) standard deviations (Laurent and Massart
    2000, lemma 1). Adam goes no further than its own rule lets any gradient take it. A mean of a
    region's hospitals is no longer than the longest of theirs.
    """
    regions = request.config.aggregation.regions
    return max(_bound_of(request, hospital) for hospital in regions.get(site, (site,)))


def _bound_of(request: TrainRequest, site: str) -> float:
    config = request.config
    if config.privacy == "none":
        return math.inf
    rules = config.training
    rate, steps = learning_rate(rules, request.round), rules.local_steps
    values = sum(value.numel() for value in request.weights.values())
    if rules.optimizer == "adamw":
        moved = rate * math.sqrt(values) * sum(map(_adam_step, range(1, steps + 1)))
        return moved + rate * steps * rules.weight_decay * (norm(request.weights) + moved)
    reach = [(1 - rules.momentum**j) / (1 - rules.momentum) for j in range(1, steps + 1)]
    summed, noise = _gradient(config, config.privacy, site, values)
    moved = rate * (sum(reach) * summed + math.hypot(*reach) * noise)
    # Each step's decay adds at most so much of what the weights are by then.
    decay = 1 + rate * rules.weight_decay * max(reach)
    return moved * decay**steps + norm(request.weights) * (decay**steps - 1)


def _gradient(
    config: RunConfig, privacy: PatientPrivacy, site: str, values: int
) -> tuple[float, float]:
    """Return the largest length of a step's clipped sum and of its noise, after division."""
    agreed = privacy.agreed(site)
    # Where a site divides by its own number, few patients have the most noise for their divisor.
    patients = config.cohort.smallest_cohort if agreed == "declared" else agreed
    drawn = privacy.sampling_rate * patients
    more = 1.0 if agreed == "declared" else _MORE_PATIENTS
    summed = more * drawn
    if privacy.sampling_rate < 1:
        summed = 2 * summed + _MORE_DRAWN
    tail = math.sqrt(values) + math.sqrt(2 * math.log(1 / _NOISE_TAIL))
    noise = _noise_multiplier(privacy, config.training, patients) * tail
    return privacy.clip_norm * summed / drawn, privacy.clip_norm * noise / drawn


def _noise_multiplier(privacy: PatientPrivacy, rules: Training, patients: int) -> float:
    plan = make_plan(privacy, rules, patients, float(patients), simulated=False)
    return plan.mechanism.noise_multiplier


def _adam_step(number: int) -> float:
    """Return the largest step of one weight, in learning rates, by Cauchy and Schwarz."""
    first, second = _ADAM_BETAS
    ratio = first * first / second
    total = (1 - first) ** 2 / (1 - second) * (1 - ratio**number) / (1 - ratio)
    return math.sqrt(total) * math.sqrt(1 - second**number) / (1 - first**number)
