"""Arms of a comparison: the ways to train, on the same splits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, assert_never, get_args

import torch
from torch import Tensor

from client.cohort.site_cohort import patients_at
from client.cohort_statistics.run_costs import largest_claim
from client.privacy.ledger import Ledger, Limit
from client.training.blending import blend
from client.training.evaluation import score
from client.training.fine_tuning import fine_tune
from client.training.local_model import LocalModel, open_local_model
from client.training.private_round import counted
from client.training.training_site import Guard, Site
from common.algorithms.ditto import personal_weights
from common.config.run_config import RunConfig, without_privacy
from common.data.kept_items import joined_items
from common.data.sample import Patients
from common.data.weights import Weights
from common.metrics.intervals import Estimate
from common.platform.errors import ConfigurationError, RunFailed
from common.privacy.noise import SimulatedNoise
from common.privacy.noise_calibration import delta_of
from common.tasks.task import Scores, by_patient, no_scores
from server.aggregation.rules import aggregator_of
from server.planning.measuring import measure_tests
from server.rounds.run_rounds import RoundRecord, RunRecords, begin, run_rounds
from server.rounds.run_state import RunState, RunStore
from simulations.comparison.arm_configurations import alone, plain, private
from simulations.comparison.unfinished import Unfinished, rounds_of
from simulations.engines.engine_choice import Engine, open_members

Arm = Literal["local", "pooled", "federated", "personalised", "federated_dp", "leave_one_out"]
ARMS: tuple[Arm, ...] = get_args(Arm)
#: Arms that are run where they are named: one more federation for each hospital takes long.
NAMED_ALONE: frozenset[Arm] = frozenset({"leave_one_out"})
#: Arms in which each hospital is measured with a model of its own.
OWN_MODELS: frozenset[Arm] = frozenset({"local", "personalised", "leave_one_out"})

#: The losses of nobody.
_NO_LOSSES = torch.zeros(0, dtype=torch.float64)

#: Sites by name, each with its patients of this seed and fold.
SiteSet = Mapping[str, Site]


@dataclass(frozen=True, kw_only=True)
class ArmOutcome:
    """One arm on one split: who scored what, and how it came about."""

    test: Mapping[str, Scores]  # by site, of its own test patients
    validation: Mapping[str, Tensor]  # by site: loss of each of its own validation patients
    rounds: tuple[RoundRecord, ...]  # of the shared run; empty for local
    epsilon: Mapping[str, float]  # by site; empty without privacy
    delta: Mapping[str, float]  # by site; empty without privacy
    weights: Weights  # of the shared model; empty for local
    chosen_round: int
    seconds: float
    own: Mapping[str, Weights] = field(default_factory=dict)  # by site; of local alone
    #: Metrics as a coordinator between hospitals would be told them: of noised, charged counts.
    told: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def common_epsilon(self) -> Mapping[str, float]:
        """Epsilon by site at delta 1e-5; empty without privacy."""
        return {n: value for record in self.rounds for n, value in record.common_epsilon.items()}


@dataclass(frozen=True, kw_only=True)
class ArmSetting:
    """What an arm needs to know beside its sites."""

    config: RunConfig
    seed: int
    fold: int
    folder: Path  # for ledgers of this comparison
    observe: Callable[[str, RoundRecord], None]
    engine: Engine = field(default_factory=Engine)
    unfinished: Unfinished | None = None  # None: an interruption starts over


def chosen_arms(text: str | None, config: RunConfig) -> tuple[Arm, ...]:
    """Return the arms to run, in the order that lets later ones start from earlier ones.

    `text` names them with commas between; None stands for all that the run can have.
    """
    if text is None:
        usual = tuple(a for a in ARMS if a not in NAMED_ALONE)
        return tuple(a for a in usual if a != "federated_dp" or config.privacy != "none")
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in ARMS]
    if unknown or not wanted:
        found = ", ".join(unknown) or "nothing"
        message = f"The arms to run hold {found}; expected some of {','.join(ARMS)}."
        raise ConfigurationError(message)
    if "federated_dp" in wanted:
        private(config)  # says at once when there is no privacy section
    return tuple(arm for arm in ARMS if arm in wanted)


def run_arm(
    arm: Arm, sites: SiteSet, setting: ArmSetting, before: Mapping[Arm, ArmOutcome]
) -> ArmOutcome:
    """Run one arm; `before` are those that ran on this split: personalising starts from them."""
    start = time.perf_counter()
    match arm:
        case "local":
            outcome = _local(sites, setting)
        case "pooled":
            outcome = _pooled(sites, setting)
        case "federated":
            outcome = _federated(arm, plain(setting.config), sites, setting)
        case "personalised":
            outcome = _personalised(sites, setting, before)
        case "federated_dp":
            guarded = with_ledgers(sites, setting)
            outcome = _federated(arm, private(setting.config), guarded, setting)
        case "leave_one_out":
            outcome = _leave_one_out(sites, setting)
        case _:
            assert_never(arm)
    return replace(outcome, seconds=time.perf_counter() - start)


# --- arms --------------------------------------------------------------------------------


def with_ledgers(sites: SiteSet, setting: ArmSetting) -> SiteSet:
    """Return the sites with a new ledger each and repeatable noise: no privacy claim."""
    privacy = setting.config.privacy
    if privacy == "none":
        return sites
    guarded = {}
    for name, site in sites.items():
        place = setting.folder / "ledgers" / f"{name}-seed{setting.seed}-fold{setting.fold}.db"
        for old in place.parent.glob(f"{place.name}*"):
            old.unlink()
        patients = max(counted(site, setting.config), 1)  # one without any refuses to train
        delta = delta_of(privacy, patients)
        guarded[name] = replace(
            site,
            guard=Guard(
                ledger=Ledger(place),
                # A hair above the target, which calibration meets to 1e-9 or less.
                limit=Limit(
                    epsilon=privacy.epsilon * (1 + 1e-6),
                    delta=delta,
                    run=largest_claim(setting.config),
                ),
                cohort=name,
                noise=SimulatedNoise(
                    "noise", setting.config.name, setting.seed, setting.fold, name
                ),
            ),
        )
    return guarded


def _run(
    label: str, config: RunConfig, sites: SiteSet, setting: ArmSetting, run: str
) -> tuple[RunState, LocalModel, tuple[RoundRecord, ...], dict[str, Estimate]]:
    """Run a federation of these sites to its end, and measure it as hospitals do if private."""
    seen: dict[int, RoundRecord] = {}

    def observe(record: RoundRecord) -> None:
        seen[record.round] = record
        setting.observe(label, record)

    aggregator = aggregator_of(config.aggregation, len(sites), config.extensions)
    with open_members(sites, config, setting.seed, setting.engine) as members:
        store = _store(config, members.local_model, setting, run)
        state = store.load() if store else None
        state = state or begin(config, run, setting.seed, aggregator)
        state = run_rounds(
            config, members, aggregator, state, RunRecords(store=store, observe=observe)
        )
        members.bring_memory(state.run, state.round)
        told = {} if config.privacy == "none" else measure_tests(config, members, state).metrics
        local_model = members.local_model
    return state, local_model, rounds_of(state, seen), told


def _store(
    config: RunConfig, local_model: LocalModel, setting: ArmSetting, run: str
) -> RunStore | None:
    """Return where rounds are saved; None where going on would not give the same result.

    That is so with privacy, and where sites keep layers, models or control variates, which are
    lost with the process.
    """
    ditto = config.personalisation.method == "ditto"
    keeps = ditto or local_model.local or config.aggregation.rule == "scaffold"
    if setting.unfinished is None or config.privacy != "none" or keeps:
        return None
    return setting.unfinished.store(f"{run}-{setting.fold}")


def _measure(
    local_model: LocalModel, site: Site, weights: Weights, own: Weights = MappingProxyType({})
) -> tuple[Scores, Tensor]:
    """Return test scores, and the loss of each validation patient, of weights at a site."""
    local_model.load(weights, own)
    if len(site.validation) == 0:
        return _test_scores(local_model, site), _NO_LOSSES
    return _test_scores(local_model, site), by_patient(score(local_model, site.validation))


def _test_scores(local_model: LocalModel, site: Site) -> Scores:
    """Return the scores of a site's test patients; those of nobody where it has none."""
    if len(site.test) > 0:
        return score(local_model, site.test)
    # Scored only for the form, so that all sites' scores can be put together.
    someone = site.train if len(site.train) > 0 else site.validation
    return no_scores(score(local_model, patients_at(someone, [0])))


def _federated(label: str, config: RunConfig, sites: SiteSet, setting: ArmSetting) -> ArmOutcome:
    state, local_model, records, told = _run(
        label, config, sites, setting, f"{label}-{setting.seed}"
    )
    measured = {}
    for name, site in sites.items():
        kept = site.memory.recall(state.run, state.round)
        weights = personal_weights(kept) or state.chosen
        measured[name] = _measure(local_model, site, weights, kept)
    # A site may have stopped before the last round; what it spent stays spent.
    epsilon = {name: spent for record in records for name, spent in record.epsilon.items()}
    guards = {name: sites[name].guard for name in epsilon}
    return ArmOutcome(
        test={n: s for n, (s, _) in measured.items()},
        validation={n: loss for n, (_, loss) in measured.items()},
        rounds=records,
        epsilon=epsilon,
        delta={name: guard.limit.delta for name, guard in guards.items() if guard is not None},
        weights=state.chosen,
        chosen_round=state.best_round or state.round,
        seconds=0.0,
        told=told,
    )


def _local(sites: SiteSet, setting: ArmSetting) -> ArmOutcome:
    """Train each site by itself; one with too few patients for that has no scores."""
    config = alone(setting.config, 1)
    smallest = config.cohort.smallest_cohort
    if all(len(site.train) < smallest for site in sites.values()):
        message = (
            f"No hospital can train alone: each has fewer than {smallest} training patients "
            "(cohort.smallest_cohort). Leave out the arm local with --arms."
        )
        raise RunFailed(message)
    test, loss, own = {}, {}, {}
    local_model = open_local_model(config, setting.seed)
    for name, site in sites.items():
        if len(site.train) < smallest:
            test[name], loss[name] = no_scores(_test_scores(local_model, site)), _NO_LOSSES
            continue
        run = f"local-{name}-{setting.seed}"
        state, *_ = _run(f"local {name}", config, {name: site}, setting, run)
        own[name] = state.chosen
        test[name], loss[name] = _measure(local_model, site, state.chosen)
    return _of_own_models(test, loss, own)


def _leave_one_out(sites: SiteSet, setting: ArmSetting) -> ArmOutcome:
    """Train the others of each hospital, and measure there: what a new hospital would get.

    One whose others have too few patients to train has no scores.
    """
    if len(sites) < 2:
        message = "There is one hospital, so none is left to train. Leave out arm leave_one_out."
        raise RunFailed(message)
    config, test, loss, own = plain(setting.config), {}, {}, {}
    smallest = config.cohort.smallest_cohort
    for name, site in sites.items():
        others = {other: held for other, held in sites.items() if other != name}
        able = sum(len(other.train) >= smallest for other in others.values())
        if able < config.aggregation.smallest_quorum:
            form = _test_scores(open_local_model(config, setting.seed), site)
            test[name], loss[name] = no_scores(form), _NO_LOSSES
            continue
        run = f"leave_one_out-{name}-{setting.seed}"
        state, local_model, *_ = _run(f"without {name}", config, others, setting, run)
        own[name] = state.chosen
        test[name], loss[name] = _measure(local_model, site, state.chosen)
    return _of_own_models(test, loss, own)


def _of_own_models(
    test: Mapping[str, Scores], loss: Mapping[str, Tensor], own: Mapping[str, Weights]
) -> ArmOutcome:
    """Return the outcome of an arm without a shared model, of which no round is told."""
    return ArmOutcome(
        test=test,
        validation=loss,
        rounds=(),
        epsilon={},
        delta={},
        weights={},
        chosen_round=0,
        seconds=0.0,
        own=own,
    )


def _pooled(sites: SiteSet, setting: ArmSetting) -> ArmOutcome:
    """Train on all patients in one place: what federation is measured against."""
    config = alone(setting.config, len(sites))
    everyone = Site(
        name="pooled",
        train=joined([s.train for s in sites.values()]),
        validation=joined([s.validation for s in sites.values()]),
        test=joined([s.test for s in sites.values()]),
    )
    run = f"pooled-{setting.seed}"
    state, local_model, records, _ = _run("pooled", config, {"pooled": everyone}, setting, run)
    measured = {n: _measure(local_model, s, state.chosen) for n, s in sites.items()}
    return ArmOutcome(
        test={n: s for n, (s, _) in measured.items()},
        validation={n: loss for n, (_, loss) in measured.items()},
        rounds=records,
        epsilon={},
        delta={},
        weights=state.chosen,
        chosen_round=state.best_round or state.round,
        seconds=0.0,
    )


def _personalised(
    sites: SiteSet, setting: ArmSetting, before: Mapping[Arm, ArmOutcome]
) -> ArmOutcome:
    """Keep layers at each site during the run, or make the shared model its own afterwards."""
    config = without_privacy(setting.config)
    method = config.personalisation.method
    if method in {"local_norm", "personal_head", "ditto"}:
        return _federated("personalised", config, sites, setting)
    shared = before.get("federated") or _federated("federated", plain(config), sites, setting)
    own: Mapping[str, Weights] = {}
    if method == "blend":
        own = (before.get("local") or _local(sites, setting)).own
    local_model = open_local_model(plain(config), setting.seed)
    test, loss = {}, {}
    for name, site in sites.items():
        weights: Weights = shared.weights
        if name in own:
            weights = blend(site, local_model, shared.weights, own[name])
        elif method == "fine_tune" and len(site.train) >= config.cohort.smallest_cohort:
            weights = fine_tune(site, local_model, weights, config.personalisation, setting.seed)
        test[name], loss[name] = _measure(local_model, site, weights)
    return replace(shared, test=test, validation=loss)


def joined(parts: Sequence[Patients]) -> Patients:
    """Return several sites' patients as one; only a simulation can do this."""
    offsets = [sum(len(p) for p in parts[:i]) for i in range(len(parts))]
    return Patients(
        image=joined_items([p.image for p in parts]),
        table=torch.cat([p.table for p in parts]),
        target=joined_items([p.target for p in parts]),
        patient=torch.cat([p.patient + o for p, o in zip(parts, offsets, strict=True)]),
        pseudonyms=tuple(name for p in parts for name in p.pseudonyms),
    )
