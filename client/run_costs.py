"""What a private run costs a site's patients, all parts of it, before it is charged for any.

training                  calibrated so that it and what is told of everybody keep to epsilon
evaluation                once for each round and split that the configuration has measured;
one that would claim more than the run's epsilon is refused
the cohort's description  where the site adds noise for it, and its epsilon is at most half
the run's; else a private run is not told
"""

from __future__ import annotations

import math

from client.charge import Charge
from client.describing import Telling
from client.parts import Part, charged_as, run_epsilon
from client.site import Guard, bound_to
from common.cohort_statistics import layout_of
from common.config import RunConfig
from common.config_privacy import COMMON_DELTA
from common.measurement import evaluations, noised_rows
from common.privacy.accounting import epsilon_of
from common.privacy.plan import Mechanism, PrivacyPlan, count_mechanism
from common.wire import Request

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
    run, config = request.run, request.config
    planned: dict[Part, Mechanism] = {"train": plan.mechanism}
    for mechanism in guard.beside:
        planned["statistics"] = mechanism
    costs = [_charge(guard, request, part, mechanism) for part, mechanism in planned.items()]
    for part in ("validation", "test"):
        times = evaluations(config, part)
        if config.evaluation.count_noise > 0 and times:
            once = count_mechanism(math.sqrt(noised_rows(config)), config.evaluation.count_noise)
            more = [_charge(guard, request, part, once)] * times
            beside = [charge for charge in costs if charge.run == charged_as(run, "statistics")]
            if run_epsilon([*more, *beside], run, plan.delta) <= largest_claim(config):
                costs += more
    return costs


def _charge(guard: Guard, request: Request, part: Part, mechanism: Mechanism) -> Charge:
    return Charge(
        cohort=guard.cohort, run=charged_as(request.run, part), round=0, attempt=1,
        mechanism=mechanism, bound=bound_to(request, guard.split),
    )  # fmt: skip
