"""What is measured and what may leave a site: evaluation and patient-level privacy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.config_part import NonNegativeFloat, Part, PositiveFloat, PositiveInt
from common.config_training import Aggregation, Model, Training


class Evaluation(Part):
    """What is measured, and what may leave a site."""

    #: The headline over all sites' test patients together, or the mean of the sites' own.
    average: Literal["merged", "sites"] = "merged"
    #: A patient's images are averaged before scoring, or each is scored.
    unit: Literal["patient", "image"] = "patient"
    #: Counts of patients below this are not released.
    smallest_cell: PositiveInt = 5
    specificity: float = Field(strict=True, default=0.9, gt=0, lt=1)
    bootstrap: PositiveInt = 1000
    #: Standard deviation of Gaussian noise on released counts, charged to the ledger (0: off).
    count_noise: NonNegativeFloat = 0.0


class PatientPrivacy(Part):
    """Patient-level differential privacy: the budget of the whole run, at each site."""

    unit: Literal["patient"]
    epsilon: PositiveFloat
    #: per_site is 1 / (10 x the site's training patients).
    delta: Annotated[float, Field(strict=True, gt=0, lt=1)] | Literal["per_site"] = "per_site"
    #: Public divisor of the sum: the site's training patients, by site, as agreed in public.
    #: A site that is not named divides by `default_patients`; `declared` publishes the count.
    public_patients: dict[str, PositiveInt] = Field(default={})
    default_patients: PositiveInt | Literal["declared"] = "declared"
    clipping: Literal["automatic", "flat"] = "automatic"
    clip_norm: PositiveFloat = 1.0
    #: Probability that a patient is in a step; 1 takes all and needs no secret sampling.
    sampling_rate: float = Field(strict=True, default=1.0, ge=0.001, le=1)
    #: Another way to train than without privacy; by default the same.
    training: Training | None = None
    model: Model | None = None
    aggregation: Aggregation | None = None
