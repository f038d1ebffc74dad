"""Sections `evaluation` and `privacy`: what is measured and what may leave."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.config.aggregation import Aggregation
from common.config.parts.extension import NamedExtension
from common.config.parts.section import Part, PositiveFloat, PositiveInt
from common.config.training import Model, Training
from common.platform.errors import ConfigurationError

#: Every epsilon is also told at this delta, so that runs and studies can be compared.
COMMON_DELTA = 1e-5
#: How near a number of patients is to what a site has: agreed on in public before the run, told
#: with noise, or counted.
Known = Literal["agreed", "noised", "exact"]
#: What is taken as predicted.
Threshold = Annotated[float, Field(strict=True, gt=0, lt=1)] | Literal["most_probable"]


class Evaluation(Part):
    """What is measured, and what may leave a site."""

    #: The headline over all sites' test patients together, or the mean of the sites' own.
    average: Literal["merged", "sites"] = "merged"
    #: A patient's images are averaged before scoring, or each is scored.
    unit: Literal["patient", "image"] = "patient"
    #: Counts of patients below this are not released without noise.
    smallest_cell: PositiveInt = 5
    specificity: float = Field(strict=True, default=0.9, gt=0, lt=1)
    bootstrap: PositiveInt = 1000
    #: From which probability on a label counts as predicted, or `most_probable` of classes that
    #: exclude each other: then accuracy, F1 and the confusion matrix are measured, too.
    threshold: Threshold | None = Field(default=None, exclude_if=lambda given: given is None)
    #: Standard deviation, in patients, of Gaussian noise on each count, charged to the ledger.
    #: A private run is not measured without; 0 is for runs without privacy.
    count_noise: float = Field(strict=True, default=0.0, ge=0, le=1e6)
    #: Extensions' metrics of the released counts (docs/extensions.md), beside the task's own.
    metrics: tuple[NamedExtension, ...] = Field(default=(), exclude_if=lambda given: not given)


class PatientPrivacy(Part):
    """Patient-level differential privacy: the budget of the whole run, at each site."""

    unit: Literal["patient"]
    epsilon: PositiveFloat
    #: per_site is 1 / (10 x the site's training patients): those agreed on, or those it declares.
    delta: Annotated[float, Field(strict=True, gt=0, lt=1)] | Literal["per_site"] = COMMON_DELTA
    #: Public divisor of the sum: about the site's training patients, by site, as agreed on
    #: before the run. A round figure: what a site really has stays there.
    public_patients: dict[str, PositiveInt] = Field(default={})
    #: The same for sites that are not named; without it they cannot take part. `declared` tells
    #: the exact count of training patients with each update, which no charge covers.
    default_patients: PositiveInt | Literal["declared"] | None = None
    clipping: Literal["automatic", "flat"] = "automatic"
    #: Far outside these bounds floats run out: 1e-319 made every update NaN, but for an empty sum.
    clip_norm: float = Field(strict=True, default=1.0, ge=1e-6, le=1e6)
    #: Probability that a patient is in a step; 1 takes all and needs no secret sampling.
    sampling_rate: float = Field(strict=True, default=1.0, ge=0.001, le=1)
    #: Another way to train than without privacy; by default the same.
    training: Training | None = None
    model: Model | None = None
    aggregation: Aggregation | None = None

    def agreed(self, site: str) -> int | Literal["declared"]:
        """Return the training patients of a site that the run counts on.

        ConfigurationError where nobody agreed on any.
        """
        patients = self.public_patients.get(site, self.default_patients)
        if patients is None:
            named = ", ".join(sorted(self.public_patients)) or "nobody"
            message = (
                f"privacy.public_patients names {named}, expected {site} too, with about its "
                f"number of training patients: {{{site}: 100}}. Or give default_patients."
            )
            raise ConfigurationError(message)
        return patients

    def training_patients_are(self, site: str) -> Known:
        """Return what the number of training patients is that a run knows of a site."""
        named = self.public_patients.get(site, self.default_patients)
        return "agreed" if isinstance(named, int) else "exact"

    def declares(self, site: str) -> bool:
        """Return whether a site's updates tell the exact number of its training patients."""
        return self.agreed(site) == "declared"
