"""A small run for tests of the Python API: invented hospitals, pictures and a table, 3 rounds."""

from __future__ import annotations

from collections.abc import Mapping

SMALL: Mapping[str, object] = {
    "name": "small",
    "task": {"kind": "diagnosis", "target": "malignant"},
    "cohort": {
        "images": {"size": [32, 32]},
        "table": {"numbers": [{"column": "age", "center": 60.0, "scale": 100.0}]},
        "split": {"test_fraction": 0.4},
        "confounder": "sex",
    },
    "model": {"network": "small_cnn", "width": 8},
    "training": {"rounds": 3, "local_steps": 1, "batch_patients": 4},
    "evaluation": {"bootstrap": 50},
    "privacy": {"unit": "patient", "epsilon": 8.0, "default_patients": 10},
    "synthetic": {"modality": "xray", "patients": 60, "seed": 0},
}
