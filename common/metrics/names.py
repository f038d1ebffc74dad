"""Names of metrics for people; results.json and card.json keep the short names.

Known without torch, so that looking at a run starts at once.

Public: metric_words.
"""

from __future__ import annotations

from collections.abc import Mapping

_WORDS: Mapping[str, str] = {
    "auroc": "AUROC",
    "macro_auroc": "macro AUROC",
    "average_precision": "average precision",
    "sensitivity_at_specificity": "sensitivity at the stated specificity",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "concordance": "C-index",
    "integrated_brier": "integrated Brier score",
    "dice": "Dice",
    "r2": "R2",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "bias": "mean error (bias)",
    "agreement_low": "lower limit of agreement",
    "agreement_high": "upper limit of agreement",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "interval_coverage": "coverage of 90 % intervals",
    "interval_half_width": "half width of 90 % intervals",
    "hd95": "HD95",
    "quadratic_kappa": "kappa with quadratic weights",
    "grade_error": "mean absolute error in grades",
    "ranked_probability": "ranked probability score",
    "macro_f1": "macro F1",
    "f1": "F1",
    "cause_auc": "AUC at the horizon, mean over causes",
    "loss": "loss",
}

#: Of a label, grade, structure, time or cause; the longer beginning comes first.
_OF: Mapping[str, str] = {
    "auroc_above_": "AUROC of lying above {}",
    "auroc_": "AUROC of {}",
    "auc_at_": "AUC at {}",
    "auc_": "AUC of {} at the horizon",
    "brier_": "integrated Brier score of {}",
    "observed_": "observed incidence of {} at the horizon",
    "predicted_": "predicted incidence of {} at the horizon",
    "dice_": "Dice of {}",
    "hd95_": "HD95 of {}",
}


def metric_words(name: str) -> str:
    """Return a metric's name as people read it; an unknown one without its underscores."""
    if name in _WORDS:
        return _WORDS[name]
    for start, words in _OF.items():
        if name.startswith(start):
            return words.format(name.removeprefix(start))
    return name.replace("_", " ")
