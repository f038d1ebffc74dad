"""Costs of a private run for a site's patients, all parts of it, before any is charged.

training                  calibrated so that it and what is told of everybody keep to epsilon
evaluation                once for each round and split that the configuration has measured;
one that would claim more than the run's epsilon is refused
the cohort's description  where the site adds noise for it, and its epsilon is at most half
the run's; else a private run is not told
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from client.cohort_statistics.description import Telling
from client.privacy.charge_text import BoundTo, Charge
from client.privacy.composition import Part, binding, charged_as, part_of, run_epsilon
from client.privacy.ledger import COHORT
from client.training.training_site import Guard, bound_to
from common.config.measured_rounds import evaluations
from common.config.privacy import COMMON_DELTA
from common.config.run_config import RunConfig
from common.messages.cohort_statistics import layout_of
from common.messages.wire import Request
from common.privacy.accounting import epsilon_of
from common.privacy.noise_calibration import make_plan
from common.privacy.plan import Mechanism, PrivacyPlan, count_mechanism

#: Calibration meets its target to 1e-9 or less.
_HAIR = 1 + 1e-6


def largest_claim(config: RunConfig) -> float:
    """Return the most that a run may claim of the patients of any of its parts."""
    return math.inf if config.privacy == "none" else config.privacy.epsilon * _HAIR


def told_of_everybody(config: RunConfig, telling: Telling) -> tuple[Mechanism, ...]:
    """Return what describing the cohort is charged in a private run; empty where it is not told."""
    if config.privacy == "none" or telling.noise <= 0:
        return ()
    tables = len(layout_of(config).keys() - {"studies"})
    spread = max(telling.noise, config.evaluation.count_noise)
    mechanism = count_mechanism(math.sqrt(tables), spread)
    within = epsilon_of([mechanism], COMMON_DELTA) <= config.privacy.epsilon / 2
    return (mechanism,) if within else ()


def run_costs(request: Request, plan: PrivacyPlan, guard: Guard) -> list[Charge]:
    """Return the charges of a request's whole run, each part's together."""
    bound = bound_to(request, guard.split)
    return _all_parts(request.run, request.config, plan, guard.beside, bound)


def _all_parts(
    run: str, config: RunConfig, plan: PrivacyPlan, everybody: Sequence[Mechanism], bound: BoundTo
) -> list[Charge]:
    def charge(part: Part, mechanism: Mechanism) -> Charge:
        return Charge(
            cohort=COHORT,
            run=charged_as(run, part),
            round=0,
            attempt=1,
            mechanism=mechanism,
            bound=bound,
        )

    planned: dict[Part, Mechanism] = {"train": plan.mechanism}
    for mechanism in everybody:
        planned["statistics"] = mechanism
    costs = [charge(part, mechanism) for part, mechanism in planned.items()]
    for part in ("validation", "test"):
        times = evaluations(config, part)
        if config.evaluation.count_noise > 0 and times:
            once = count_mechanism(math.sqrt(config.noised_rows), config.evaluation.count_noise)
            more = [charge(part, once)] * times
            beside = [charge for charge in costs if charge.run == charged_as(run, "statistics")]
            if run_epsilon([*more, *beside], run, plan.delta) <= largest_claim(config):
                costs += more
    return costs


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run would cost this site's patients, before anything is released."""

    epsilon: float  # of each training patient, in the whole run, at its own delta
    delta: float
    common_epsilon: float  # at delta 1e-5
    measuring: float | None  # of each test patient, at delta 1e-5; None: it is not measured
    spent: float  # of the site's limit, by other runs, at the limit's delta
    spent_after: float  # with this run


def cost_of(
    config: RunConfig, site: str, telling: Telling, before: Sequence[Charge], delta: float
) -> Cost | None:
    """Return what a run in force would cost; None without privacy, or while nobody is counted.

    `before` is what was charged for other runs, `delta` that of the site's limit.
    """
    privacy = config.privacy
    if privacy == "none":
        return None
    agreed = privacy.agreed(site)
    if agreed == "declared" and privacy.delta == "per_site":
        return None
    # With a number for delta nothing but the divisor depends on the patients.
    patients = 1 if agreed == "declared" else agreed
    beside = told_of_everybody(config, telling)
    plan = make_plan(
        privacy,
        config.training,
        patients,
        patients * privacy.sampling_rate,
        simulated=False,
        history=beside,
    )
    bound = BoundTo(configuration=config.fingerprint(), seed=0, split="")
    # No run of the ledger has this name: what it holds of others adds up with this.
    costs = _all_parts("/", config, plan, beside, bound)
    measured = [c.mechanism for c in costs if part_of(c.run)[1] == "test"]
    return Cost(
        epsilon=plan.epsilon,
        delta=plan.delta,
        common_epsilon=plan.common_epsilon or plan.epsilon,
        measuring=epsilon_of(measured, COMMON_DELTA) if measured else None,
        spent=epsilon_of(binding(before), delta),
        spent_after=epsilon_of([*binding(before), *binding(costs)], delta),
    )
