"""Section `aggregation`: how the sites' updates become one."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from common.config.parts.extension import (
    ExtensionArguments,
    ExtensionName,
    is_extension,
    ours_or_named,
)
from common.config.parts.section import Part, PositiveFloat, PositiveInt
from common.config.training import Training

RuleName = Literal["mean", "scaffold", "median", "trimmed_mean", "krum", "multi_krum", "flower"]


class ServerOptimizer(Part):
    """What the coordinator does with the mean update (Reddi et al. 2021, algorithm 2)."""

    kind: Literal["sgd", "fedavgm", "fedadam", "fedyogi"] = "sgd"
    learning_rate: PositiveFloat = 1.0
    beta1: float = Field(strict=True, default=0.9, ge=0, lt=1)
    beta2: float = Field(strict=True, default=0.99, ge=0, lt=1)
    tau: PositiveFloat = 1e-3


class Aggregation(Part):
    """How the sites' updates become one."""

    #: One of ours, or DISTRIBUTION/NAME of an installed extension (docs/extensions.md).
    #: scaffold takes training.optimizer: sgd without momentum, and no private run.
    rule: Annotated[RuleName | ExtensionName, ours_or_named(get_args(RuleName))] = "mean"
    server: ServerOptimizer = ServerOptimizer()
    #: Public weights by site name; a site that is not named weighs `default_weight`.
    weights: dict[str, PositiveFloat] = Field(default={})
    default_weight: PositiveFloat = 1.0
    #: mean: hospitals that a regional coordinator asks and adds up, by the region's name; they are
    #: weighed as if one coordinator had asked them all.
    regions: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=lambda given: not given)
    #: trimmed_mean: part cut at each end. krum: sites that may be faulty.
    trim_fraction: float = Field(strict=True, default=0.2, ge=0, lt=0.5)
    faulty_sites: int = Field(strict=True, default=1, ge=0)
    #: Fewest admitted updates with which a round counts; with fewer the run stops.
    smallest_quorum: PositiveInt = 1
    #: An update is refused when its norm is above so many times that of the weights (at least 1).
    largest_update: PositiveFloat = 1e4
    #: mean, scaffold, flower, an extension's, without privacy, from three updates on: one that is
    #: longer than so many times the median norm (of this or an earlier round) counts as long as
    #: that; null: as it came. With privacy, public constants bound it.
    largest_over_median: PositiveFloat | None = 2.0
    #: flower: a class of flwr.serverapp.strategy and its arguments, or those of an extension.
    strategy: str | None = None
    arguments: ExtensionArguments = Field(default={})

    @model_validator(mode="after")
    def _fits_together(self) -> Aggregation:
        if (self.rule == "flower") != (self.strategy is not None):
            message = "rule: flower goes together with strategy: CLASS of flwr.serverapp.strategy"
            raise ValueError(message)
        if self.arguments and not (self.rule == "flower" or is_extension(self.rule)):
            message = (
                f"arguments={self.arguments} go with rule: flower or an extension's; {self.rule} "
                "would not see them"
            )
            raise ValueError(message)
        _check_regions(self)
        return self


def _check_regions(given: Aggregation) -> None:
    """Raise ValueError where regions are none that can be added up."""
    if given.regions and given.rule != "mean":
        message = f"regions go with rule: mean; {given.rule} compares or keeps single hospitals"
        raise ValueError(message)
    known = set(given.regions)
    for region, sites in given.regions.items():
        if len(sites) < 2:
            message = (
                f"regions.{region} has {len(sites)} hospital, expected at least two: a sum of one "
                "is that hospital's own update"
            )
            raise ValueError(message)
        twice = known & set(sites) or {site for site in sites if sites.count(site) > 1}
        if twice:
            message = f"regions name {', '.join(sorted(twice))} twice; each name stands for one"
            raise ValueError(message)
        known |= set(sites)


def scaffold_misfit(training: Training, aggregation: Aggregation) -> str | None:
    """Return why SCAFFOLD cannot run on these steps, or None where it can.

    A site's control variate is c_i - c + (x - y) / (K x rate), the mean of its K gradients
    (Karimireddy et al. 2020, algorithm 1, option II), only where y = x - rate x the sum of
    the corrected gradients: plain gradient descent.
    """
    if aggregation.rule != "scaffold":
        return None
    if training.optimizer != "sgd":
        return (
            f"aggregation.rule=scaffold does not fit training.optimizer={training.optimizer}:"
            " control variates are mean gradients only after plain steps; write"
            " training.optimizer: sgd"
        )
    if training.momentum > 0:
        return (
            f"aggregation.rule=scaffold does not fit training.momentum={training.momentum}:"
            " control variates are mean gradients only after plain steps; leave momentum out, or"
            " take aggregation.server: {kind: fedavgm}"
        )
    return None
