"""The ways to train that are compared, each through the same rounds on the same splits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never, get_args

import torch

from client.evaluation import score
from client.fine_tuning import fine_tune
from client.ledger import Ledger, Limit
from client.site import Guard, Site
from client.workbench import Workbench
from common.config import Aggregation, Personalisation, RunConfig
from common.errors import ConfigurationError
from common.privacy.noise import SimulatedNoise
from common.sample import Patients
from common.tasks.task import Scores
from common.weights import Weights, load_into
from server.aggregation import aggregator_of
from server.rounds import Records, RoundRecord, begin, run_rounds
from server.run_state import RunState
from simulations.in_process import InProcessSites
from simulations.workers import WorkerSites

Arm = Literal["local", "pooled", "federated", "personalised", "federated_dp"]
ARMS: tuple[Arm, ...] = get_args(Arm)

#: Sites by name, each with its patients of this seed and fold.
SiteSet = Mapping[str, Site]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One arm on one split: who scored what, and how it came about."""

    test: Mapping[str, Scores]  # by site, of its own test patients
    validation_loss: Mapping[str, float]  # by site, of its own validation patients
    rounds: tuple[RoundRecord, ...]  # of the shared run; empty for local
    epsilon: Mapping[str, float]  # by site; empty without privacy
    delta: Mapping[str, float]  # by site; empty without privacy
    weights: Weights  # of the shared model; empty for local
    chosen_round: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an arm needs to know beside its sites."""

    config: RunConfig
    seed: int
    fold: int
    folder: Path  # for saved states and ledgers of this comparison
    observe: Callable[[str, RoundRecord], None]
    workers: int = 1  # processes that the sites of a round are shared among


def run_arm(arm: Arm, sites: SiteSet, setting: Setting, shared: Outcome | None) -> Outcome:
    """Run one arm; `shared` is the federated outcome, which fine-tuning starts from."""
    start = time.perf_counter()
    match arm:
        case "local":
            outcome = _local(sites, setting)
        case "pooled":
            outcome = _pooled(sites, setting)
        case "federated":
            outcome = _federated(arm, plain(setting.config), sites, setting)
        case "personalised":
            outcome = _personalised(sites, setting, shared)
        case "federated_dp":
            guarded = with_ledgers(sites, setting)
            outcome = _federated(arm, private(setting.config), guarded, setting)
        case _:
            assert_never(arm)
    return replace(outcome, seconds=time.perf_counter() - start)


# --- configurations ----------------------------------------------------------------------


def plain(config: RunConfig) -> RunConfig:
    """Return the run without privacy and with nothing kept at the sites."""
    return config.model_copy(
        update={"privacy": "none", "personalisation": Personalisation(method="none")}
    )


def alone(config: RunConfig, sites: int) -> RunConfig:
    """Return ordinary training of one data set; a step sees as many patients as all sites' did."""
    size = config.training.batch_patients
    batch = size if size == "all" else size * sites
    return plain(config).model_copy(update={
        "aggregation": Aggregation(server=config.aggregation.server),
        "training": config.training.model_copy(update={"batch_patients": batch}),
    })  # fmt: skip


def private(config: RunConfig) -> RunConfig:
    """Return the run with its privacy section in force; ConfigurationError when there is none."""
    privacy = config.privacy
    if privacy == "none":
        message = (
            f"The arm federated_dp needs a privacy section in run {config.name}. Add one, give "
            "--epsilon, or leave the arm out with --arms local,pooled,federated,personalised."
        )
        raise ConfigurationError(message)
    return config.model_copy(update={
        "personalisation": Personalisation(method="none"),
        "training": privacy.training or config.training,
        "model": privacy.model or config.model,
        "aggregation": privacy.aggregation or config.aggregation,
        # A choice among rounds looks at validation patients, which no charge covers.
        "selection": config.selection.model_copy(update={"rule": "last"}),
    })  # fmt: skip


def with_ledgers(sites: SiteSet, setting: Setting) -> SiteSet:
    """Return the sites with a new ledger each and repeatable noise: no privacy claim."""
    privacy = setting.config.privacy
    if privacy == "none":
        return sites
    guarded = {}
    for name, site in sites.items():
        place = setting.folder / "ledgers" / f"{name}-seed{setting.seed}-fold{setting.fold}.db"
        for old in place.parent.glob(f"{place.name}*"):
            old.unlink()
        patients = len(site.train)
        delta = 1 / (10 * patients) if privacy.delta == "per_site" else privacy.delta
        guarded[name] = replace(site, guard=Guard(
            ledger=Ledger(place),
            # A hair above the target, which calibration meets to 1e-9 or less.
            limit=Limit(epsilon=privacy.epsilon * (1 + 1e-6), delta=delta),
            cohort=name,
            noise=SimulatedNoise("noise", setting.config.name, setting.seed, setting.fold, name),
        ))  # fmt: skip
    return guarded


# --- arms --------------------------------------------------------------------------------


def _run(
    label: str, config: RunConfig, sites: SiteSet, setting: Setting, run: str
) -> tuple[RunState, Workbench, list[RoundRecord]]:
    """Run a federation of these sites to its end."""
    records: list[RoundRecord] = []

    def observe(record: RoundRecord) -> None:
        records.append(record)
        setting.observe(label, record)

    aggregator = aggregator_of(config.aggregation, len(sites))
    state = begin(config, run, setting.seed, aggregator)
    if setting.workers == 1 or len(sites) == 1:
        members = InProcessSites(sites, config, setting.seed)
        state = run_rounds(config, members, aggregator, state, Records(observe=observe))
        return state, members.bench, records
    with WorkerSites(sites, config, setting.seed, setting.workers) as workers:
        state = run_rounds(config, workers, aggregator, state, Records(observe=observe))
        workers.bring_memory(state.run, state.round)
    return state, workers.bench, records


def _measure(
    bench: Workbench, site: Site, weights: Weights, own: Weights | None = None
) -> tuple[Scores, float]:
    """Return test scores and mean validation loss of weights at a site."""
    load_into(bench.model, weights)
    load_into(bench.model, bench.own_layers(own or {}))
    if len(site.validation) == 0:
        return score(bench, site.test), float("nan")
    return score(bench, site.test), float(score(bench, site.validation).loss.mean())


def _federated(label: str, config: RunConfig, sites: SiteSet, setting: Setting) -> Outcome:
    state, bench, records = _run(label, config, sites, setting, f"{label}-{setting.seed}")
    measured = {
        name: _measure(
            bench, site, state.chosen, site.memory.recall(state.run, state.round)
        )
        for name, site in sites.items()
    }
    return Outcome(
        test={n: s for n, (s, _) in measured.items()},
        validation_loss={n: loss for n, (_, loss) in measured.items()},
        rounds=tuple(records),
        epsilon=records[-1].epsilon,
        delta={n: s.guard.limit.delta for n, s in sites.items() if s.guard is not None},
        weights=state.chosen,
        chosen_round=state.best_round or state.round,
        seconds=0.0,
    )


def _local(sites: SiteSet, setting: Setting) -> Outcome:
    """Train each site by itself."""
    config = alone(setting.config, 1)
    test, loss = {}, {}
    for name, site in sites.items():
        run = f"local-{name}-{setting.seed}"
        state, bench, _ = _run(f"local {name}", config, {name: site}, setting, run)
        test[name], loss[name] = _measure(bench, site, state.chosen)
    return Outcome(
        test=test, validation_loss=loss, rounds=(), epsilon={}, delta={}, weights={},
        chosen_round=0, seconds=0.0,
    )  # fmt: skip


def _pooled(sites: SiteSet, setting: Setting) -> Outcome:
    """Train on all patients in one place: what federation is measured against."""
    config = alone(setting.config, len(sites))
    everyone = Site(
        name="pooled",
        train=joined([s.train for s in sites.values()]),
        validation=joined([s.validation for s in sites.values()]),
        test=joined([s.test for s in sites.values()]),
    )
    run = f"pooled-{setting.seed}"
    state, bench, records = _run("pooled", config, {"pooled": everyone}, setting, run)
    measured = {n: _measure(bench, s, state.chosen) for n, s in sites.items()}
    return Outcome(
        test={n: s for n, (s, _) in measured.items()},
        validation_loss={n: loss for n, (_, loss) in measured.items()},
        rounds=tuple(records), epsilon={}, delta={}, weights=state.chosen,
        chosen_round=state.best_round or state.round, seconds=0.0,
    )  # fmt: skip


def _personalised(sites: SiteSet, setting: Setting, shared: Outcome | None) -> Outcome:
    """Keep layers at each site during the run, or tune the shared model there afterwards."""
    config = setting.config.model_copy(update={"privacy": "none"})
    if config.personalisation.method in {"local_norm", "personal_head"}:
        return _federated("personalised", config, sites, setting)
    if shared is None:
        shared = _federated("federated", plain(config), sites, setting)
    members = InProcessSites(sites, plain(config), setting.seed)
    test, loss = {}, {}
    for name, site in sites.items():
        tuned = fine_tune(site, members.bench, shared.weights, config.personalisation, setting.seed)
        test[name], loss[name] = _measure(members.bench, site, tuned)
    return replace(shared, test=test, validation_loss=loss)


def joined(parts: Sequence[Patients]) -> Patients:
    """Return several sites' patients as one; only a simulation can do this."""
    offsets = [sum(len(p) for p in parts[:i]) for i in range(len(parts))]
    return Patients(
        image=torch.cat([p.image for p in parts]),
        table=torch.cat([p.table for p in parts]),
        target=torch.cat([p.target for p in parts]),
        patient=torch.cat([p.patient + o for p, o in zip(parts, offsets, strict=True)]),
        pseudonyms=tuple(name for p in parts for name in p.pseudonyms),
    )
