"""The shared model of a comparison as a bundle."""

from __future__ import annotations

from pathlib import Path

from common.bundle.write import Card, write_bundle
from common.config.run_config import RunConfig, without_privacy
from common.data.weights import load_into
from common.metrics.intervals import Estimate, unknown
from common.models.run_network import network_of
from common.privacy.statement import statement
from common.tasks.task import owners
from server.planning.measuring import measured
from simulations.comparison.arm_configurations import alone, plain, private
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.report.bundle_evidence import evidence_of


def write_shared_model(folder: Path, found: Comparison) -> bool:
    """Write the shared model of the first seed; False when no arm has one."""
    shared = found.shared_model
    if shared is None:
        return False
    arm, seed, weights = shared
    config = config_of(found, arm)
    network = network_of(config, seed)
    load_into(network, weights)
    card = Card(
        metrics={arm: _metrics(found, arm, seed)},
        privacy=privacy_of(found, arm),
        seed=seed,
        round=found.outcomes[arm, seed][0].chosen_round,
        evidence=evidence_of(found, arm, seed),
    )
    write_bundle(folder, network, config, card)
    return True


def config_of(found: Comparison, arm: Arm) -> RunConfig:
    """Return the configuration that the arm's shared weights were trained under."""
    match arm:
        case "pooled":
            return alone(found.config, len(found.cohorts))
        case "federated_dp":
            return private(found.config)
        case "federated" | "local" | "leave_one_out":
            return plain(found.config)
        case "personalised":
            return without_privacy(found.config)


def privacy_of(found: Comparison, arm: Arm) -> str:
    """Return the privacy statement of an arm of the first seed."""
    outcome = found.outcomes[arm, found.seeds[0]][0]
    config = config_of(found, arm)
    claim = statement(
        config.privacy,
        outcome.epsilon,
        outcome.delta,
        outcome.common_epsilon,
        simulated=True,
        extensions=config.in_force().extensions,
    )
    return claim if config.privacy == "none" else f"{claim} {measured(config)}"


def _metrics(found: Comparison, arm: Arm, seed: int) -> dict[str, dict[str, Estimate]]:
    """Return all metrics on test patients, by hospital and together; small cells are left out."""
    smallest = found.config.evaluation.smallest_cell
    every = {"all": found.merged_scores(arm, seed)} | {
        c.name: found.site_scores(arm, seed, c.name) for c in found.cohorts
    }
    metrics = {}
    for name, scores in every.items():
        if len(set(owners(scores).tolist())) >= smallest:
            metrics[name] = found.metrics(scores, seed)
        elif len(scores.loss):
            metrics[name] = {
                metric: unknown(0, f"withheld: fewer than {smallest} patients")
                for metric in found.metrics(scores, seed)
            }
    return metrics
