"""Grey values of a structure: IBSI's intensity-based statistics."""

from __future__ import annotations

import numpy as np

from client.radiomics.feature import Feature
from client.radiomics.surface_mesh import Float


def intensity_of(values: Float) -> dict[Feature, float]:
    """Return the statistics of a structure's voxels, (n,); none of no voxels.

    The variance is that of these voxels, not of a sample (IBSI ECT3); where it is 0, so are
    skewness and kurtosis.
    """
    if not len(values):
        return {}
    mean = float(values.mean())
    away = values - mean
    squared = away * away
    variance = float(squared.mean())
    spread = variance if variance > 0 else 1.0
    low, quarter, middle, three_quarters, high = np.percentile(values, (10, 25, 50, 75, 90))
    kurtosis = float((squared * squared).mean()) / spread**2 - 3.0
    smallest, largest = float(values.min()), float(values.max())
    return {
        Feature.MEAN: mean,
        Feature.STANDARD_DEVIATION: variance**0.5,
        Feature.VARIANCE: variance,
        Feature.SKEWNESS: float((squared * away).mean()) / spread**1.5,
        Feature.KURTOSIS: kurtosis if variance > 0 else 0.0,
        Feature.MEDIAN: float(middle),
        Feature.MINIMUM: smallest,
        Feature.PERCENTILE_10: float(low),
        Feature.PERCENTILE_90: float(high),
        Feature.MAXIMUM: largest,
        Feature.INTERQUARTILE_RANGE: float(three_quarters - quarter),
        Feature.RANGE: largest - smallest,
        Feature.MEAN_ABSOLUTE_DEVIATION: float(np.abs(away).mean()),
    }
