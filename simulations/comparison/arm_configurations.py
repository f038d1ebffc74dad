"""Configurations of the arms, made from the one run that a person wrote."""

from __future__ import annotations

import json

from common.config.run_config import (
    Aggregation,
    Personalisation,
    RunConfig,
    parse_config,
    without_privacy,
)
from common.platform.errors import ConfigurationError


def plain(config: RunConfig) -> RunConfig:
    """Return the run without privacy and with nothing kept at the sites."""
    return without_privacy(config).model_copy(
        update={"personalisation": Personalisation(method="none")}
    )


def alone(config: RunConfig, sites: int) -> RunConfig:
    """Return ordinary training of one data set; a step sees as many patients as all sites' did."""
    size = config.training.batch_patients
    batch = size if size == "all" else size * sites
    return plain(config).model_copy(
        update={
            "aggregation": Aggregation(server=config.aggregation.server),
            "training": config.training.model_copy(update={"batch_patients": batch}),
        }
    )


def private(config: RunConfig) -> RunConfig:
    """Return the run with its privacy section in force; ConfigurationError when there is none."""
    privacy = config.privacy
    if privacy == "none":
        message = (
            f"The arm federated_dp needs a privacy section in run {config.name}. Add one, give "
            "--epsilon, or leave the arm out with --arms local,pooled,federated,personalised."
        )
        raise ConfigurationError(message)
    return config.in_force()


def with_epsilon(config: RunConfig, epsilon: float | None) -> RunConfig:
    """Return the run with another epsilon; ConfigurationError where it can have none such."""
    if epsilon is None:
        return config
    if not epsilon > 0:
        message = f"epsilon is {epsilon}, expected a number above 0."
        raise ConfigurationError(message)
    # Nobody agreed on numbers of patients, so the simulated sites declare theirs.
    declared = {"unit": "patient", "default_patients": "declared"}
    privacy = declared if config.privacy == "none" else config.privacy.model_dump(mode="json")
    content = {**config.model_dump(mode="json"), "privacy": {**privacy, "epsilon": epsilon}}
    return parse_config(json.dumps(content), source=f"run {config.name} with epsilon {epsilon}")
