"""Export of a run's model as a bundle.

Everything is read from what the run saved, and checked first: a state, a journal or results
that were changed are refused, not exported.

Public: export.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common.bundle.evidence import (
    Evidence,
    SiteData,
    calibration_from_json,
    confusion_from_json,
    survival_from_json,
)
from common.bundle.origin import Json, Origin, SiteShare
from common.bundle.write import Card, is_free, write_bundle
from common.config.run_config import RunConfig, load_config
from common.data.weights import load_into
from common.metrics.intervals import Estimate
from common.models.local_layers import local_names
from common.models.run_network import network_of
from common.platform.code_hash import bundle_hash
from common.platform.errors import ConfigurationError, RunFailed, StateDamaged
from common.platform.hash_chain import lines, verify
from common.privacy.noise_calibration import delta_of
from common.privacy.statement import statement
from server.files.folder import RunFolder
from server.files.status_reader import view_of
from server.planning.measuring import measured, told_epsilon
from server.rounds.round_record import RoundRecord, estimate_from_json
from server.rounds.run_state import RunState, RunStore

_Line = dict[str, object]
#: Test metrics by site, `all` for all together.
_Tested = dict[str, dict[str, Estimate]]


def export(folder_of_run: Path, out: Path) -> None:
    """Write the bundle of a run to `out`.

    StateDamaged when a saved file does not fit the journal or its own hash; RunFailed while the
    run is at work or has no round; ConfigurationError when the model is no whole one.
    """
    place = RunFolder(folder_of_run)
    _check_is_over(place)
    _check_free(out)
    config = load_config(place.config)
    state = _state(place, config)
    journal = _journal(place, state)
    network = network_of(config, state.seed)
    if local_names(config, network):
        message = (
            f"personalisation.method={config.personalisation.method} keeps a part of the model at "
            "each site, so there is no whole one to export. Each site has its own."
        )
        raise ConfigurationError(message)
    load_into(network, state.chosen)
    write_bundle(out, network, config, _card(place, config, state, journal))


# --- checks --------------------------------------------------------------------------------


def _check_is_over(place: RunFolder) -> None:
    if not place.config.is_file():
        message = f"There is no run in {place.path}. `wardround-coordinator status` lists them."
        raise ConfigurationError(message)
    view = view_of(place)
    if place.run.is_file() and not view.is_over:
        message = (
            f"Run {view.name} is {view.facts.state}. Wait for its end, or stop it: "
            f"wardround-coordinator stop {view.name}"
        )
        raise RunFailed(message)


def _check_free(out: Path) -> None:
    if not is_free(out):
        message = f"{out} holds other files than those of a bundle. Take another folder."
        raise ConfigurationError(message)


def _state(place: RunFolder, config: RunConfig) -> RunState:
    damaged: list[str] = []
    state = RunStore(place.state).load(damaged.append)
    if damaged:
        message = f"{damaged[0]} Then export it. Or: wardround-coordinator resume {place.path.name}"
        raise StateDamaged(message)
    if state is None:
        message = f"Run {place.path.name} has no round yet, so there is no model to export."
        raise RunFailed(message)
    if state.fingerprint != config.fingerprint():
        message = (
            f"{place.config} is not the configuration that the run was begun with (SHA-256 "
            f"{config.fingerprint()}, expected {state.fingerprint}). Restore the file."
        )
        raise StateDamaged(message)
    return state


def _journal(place: RunFolder, state: RunState) -> list[_Line]:
    """Return the journal's lines, once they tell the same as the state."""
    verify(place.journal)
    found = list(lines(place.journal))
    begun = next((line for line in found if line.get("event") in {"begun", "resumed"}), {})
    wanted: _Line = {"run": state.run, "configuration": state.fingerprint, "seed": state.seed}
    if {name: begun.get(name) for name in wanted} != wanted:
        message = f"{place.journal} is not the journal of this run. Restore it from a copy."
        raise StateDamaged(message)
    by_round = {line["round"]: line for line in found if line.get("event") == "round"}
    for record in state.history:
        line = by_round.get(record.round)
        if line is None and record is state.history[-1]:
            continue  # saved, and not written yet when the run was stopped
        if line is None or not _tells(line, record):
            message = (
                f"{place.journal} tells something else of round {record.round} than the saved "
                "state. Keep both as evidence and restore them from a copy."
            )
            raise StateDamaged(message)
    return found


def _tells(line: _Line, record: RoundRecord) -> bool:
    wanted = json.loads(json.dumps(record.to_json()))
    return all(line.get(name) == value for name, value in wanted.items() if name in line)


# --- the card ------------------------------------------------------------------------------


def _card(place: RunFolder, config: RunConfig, state: RunState, journal: list[_Line]) -> Card:
    chosen = state.best_round or state.round
    records = {record.round: record for record in state.history}
    tested = _tested(place, state, journal)
    metrics: dict[str, Mapping[str, Mapping[str, Estimate]]] = {}
    if records[chosen].metrics:
        metrics["validation"] = {"all": records[chosen].metrics}
    if tested:
        metrics["test"] = tested
    epsilon, delta = _spent(config, state)
    common = {n: value for record in state.history for n, value in record.common_epsilon.items()}
    shares = _shares(place, config, state, tested)
    return Card(
        metrics=metrics,
        seed=state.seed,
        round=chosen,
        privacy=_claims(config, epsilon, delta, common),
        origin=Origin(
            run=state.run,
            journal=str(journal[-1]["hash"]),
            code=bundle_hash(),
            finished=state.finished,
            rounds=tuple(_round(record) for record in state.history),
            sites=shares,
        ),
        evidence=_evidence(place, shares, measured=bool(tested)),
    )


def _claims(
    config: RunConfig,
    epsilon: Mapping[str, float],
    delta: Mapping[str, float],
    common: Mapping[str, float],
) -> str:
    """Return the claim of training and, in a private run, that of measuring."""
    claim = statement(
        config.privacy, epsilon, delta, common, simulated=False, extensions=config.extensions
    )
    return claim if config.privacy == "none" else f"{claim} {measured(config)}"


def _evidence(place: RunFolder, shares: Mapping[str, SiteShare], *, measured: bool) -> Evidence:
    """Return what the sites' evaluation told beside its metrics; results.json was checked."""
    told = json.loads(place.results.read_bytes()) if measured else {}
    data = {
        name: SiteData(
            training_patients=share.training_patients,
            test_patients=share.test_patients,
            training_patients_are=share.training_patients_are,
            test_patients_are=share.test_patients_are,
        )
        for name, share in shares.items()
    }
    why = "The sites' statistics hold none: not recorded." if measured else None
    found = Evidence(
        data=data,
        calibration=calibration_from_json(told.get("calibration", [])),
        confusion=confusion_from_json(told.get("confusion", [])),
        survival=survival_from_json(told.get("observed_survival", [])),
    )
    return found if why is None else replace(found, no_calibration=why)


def _spent(config: RunConfig, state: RunState) -> tuple[dict[str, float], dict[str, float]]:
    """Return each site's last word on epsilon and delta; what left earlier stays spent."""
    epsilon = {n: value for record in state.history for n, value in record.epsilon.items()}
    delta = {n: value for record in state.history for n, value in record.delta.items()}
    if config.privacy != "none" and config.privacy.delta != "per_site":
        delta = dict.fromkeys(epsilon, delta_of(config.privacy, 1)) | delta
    untold = epsilon.keys() - delta.keys()
    if untold:
        message = (
            f"The saved rounds do not say at which delta the epsilon of {', '.join(untold)} holds: "
            "they are of an older release. Export them with that release."
        )
        raise StateDamaged(message)
    return epsilon, delta


def _round(record: RoundRecord) -> dict[str, Json]:
    """Return what may be told of a round to anybody: no text that a site's answer brought."""
    told = record.to_json()
    names = ("round", "updates", "left_out", "score", "metrics", "epsilon")
    return {name: told[name] for name in names}


def _shares(
    place: RunFolder, config: RunConfig, state: RunState, tested: _Tested
) -> dict[str, SiteShare]:
    """Return what each site put in, as far as it told; small cells are left out."""
    smallest, view = config.evaluation.smallest_cell, view_of(place)
    privacy = config.privacy
    told = view.status.sites if view.status is not None else {}
    epsilon, delta = _spent(config, state)
    common = {n: value for record in state.history for n, value in record.common_epsilon.items()}
    names = sorted({name for record in state.history for name in record.updates} | set(tested))

    def shown(count: int | None) -> int | None:
        return count if count is not None and count >= smallest else None

    return {
        name: SiteShare(
            rounds=sum(name in record.updates for record in state.history),
            training_patients=shown(told[name].patients if name in told else None),
            test_patients=shown(
                max((e.patients for e in tested.get(name, {}).values()), default=None)
            ),
            epsilon=epsilon.get(name),
            delta=delta.get(name),
            common_epsilon=common.get(name),
            training_patients_are=(
                "exact" if privacy == "none" else privacy.training_patients_are(name)
            ),
            test_patients_are="noised" if config.evaluation.count_noise > 0 else "exact",
            test_common_epsilon=told_epsilon(config) if name in tested else None,
        )
        for name in names
        if name != "all"
    }


def _tested(place: RunFolder, state: RunState, journal: list[_Line]) -> _Tested:
    """Return the test metrics of results.json; empty when the run was not measured."""
    line = next((x for x in reversed(journal) if x.get("event") == "measured"), None)
    if line is None or not place.results.is_file():
        return {}
    content = place.results.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != line.get("sha256"):
        message = (
            f"{place.results} has SHA-256 {found}, the journal says {line.get('sha256')}: it was "
            "changed. Restore it from a copy."
        )
        raise StateDamaged(message)
    results = json.loads(content)
    if results["chosen_round"] != (state.best_round or state.round):
        return {}  # the run went on after it was measured
    return {
        name: {metric: estimate_from_json(value) for metric, value in values.items()}
        for name, values in {"all": results["metrics"], **results["by_site"]}.items()
    }
