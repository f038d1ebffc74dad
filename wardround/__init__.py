"""Federated learning between hospitals on DICOM images, from Python and notebooks.

    import wardround as wr

    run = wr.load("demo.yaml")                    # what is learned, from what, how
    sites = wr.cohorts(run, data="hospitals")     # a folder for each: DICOM and labels.csv
    found = wr.compare(run, sites, seeds=3)       # alone, pooled, federated, personalised, private
    found.frame()                                 # pandas
    found.report("out")                           # report.html, results.json, the model

    trained = wr.train(run, sites)                # one of these ways
    bundle = trained.bundle("model")              # safetensors, ONNX, TorchScript, a MONAI Bundle
    wr.evaluate(bundle, "another-hospital").frame()
    wr.predict("study", bundle)                   # for research, not for clinical use
    wr.measure("measure.yaml", "hospitals").frame()   # volumes and shapes of outlines

The same rounds, tasks and privacy as the commands, on the same numbers. Everything runs in this
process and on this machine's files; nothing is sent anywhere. The noise of a simulation can be
repeated, so nothing here makes a privacy claim; it shows what a claim would cost.

Errors are those of `WardroundError`; each says what was expected and what to do next. Where one
names an option of `wardround-simulate compare`, such as --data, the argument has the same name.
Names are imported when they are first used, so `import wardround` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from common.platform.errors import (
    AnswerNotAdmitted,
    BudgetExceeded,
    CohortError,
    ConfigurationError,
    ExtensionRefused,
    LedgerDamaged,
    LedgerTooNew,
    LinkDown,
    PrivacyError,
    RecordsLost,
    RunBegun,
    RunFailed,
    RunGone,
    SitesAway,
    SiteUnknown,
    StateDamaged,
    TrustRefused,
    Unreachable,
    UnsafeModel,
    WardroundError,
)

if TYPE_CHECKING:
    from common.config.run_config import RunConfig
    from wardround.configuration import load
    from wardround.measuring import Measurements, measure
    from wardround.scoring import Evaluated, Prediction, evaluate, open_bundle, predict
    from wardround.sites import Cohorts, cohorts, partition
    from wardround.training import Results, Trained, compare, train

__all__ = [
    "AnswerNotAdmitted",
    "BudgetExceeded",
    "CohortError",
    "Cohorts",
    "ConfigurationError",
    "Evaluated",
    "ExtensionRefused",
    "LedgerDamaged",
    "LedgerTooNew",
    "LinkDown",
    "Measurements",
    "Prediction",
    "PrivacyError",
    "RecordsLost",
    "Results",
    "RunBegun",
    "RunConfig",
    "RunFailed",
    "RunGone",
    "SiteUnknown",
    "SitesAway",
    "StateDamaged",
    "Trained",
    "TrustRefused",
    "Unreachable",
    "UnsafeModel",
    "WardroundError",
    "cohorts",
    "compare",
    "evaluate",
    "load",
    "measure",
    "open_bundle",
    "partition",
    "predict",
    "train",
]

#: Where what takes a second to load is, for the first use of its name.
_PLACES = {
    "RunConfig": "common.config.run_config",
    "load": "wardround.configuration",
    **dict.fromkeys(("Measurements", "measure"), "wardround.measuring"),
    **dict.fromkeys(("Cohorts", "cohorts", "partition"), "wardround.sites"),
    **dict.fromkeys(("Results", "Trained", "compare", "train"), "wardround.training"),
    **dict.fromkeys(
        ("Evaluated", "Prediction", "evaluate", "open_bundle", "predict"), "wardround.scoring"
    ),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is used for the first time (PEP 562)."""
        if name not in _PLACES:
            message = f"module wardround has no attribute {name}"
            raise AttributeError(message)
        globals()[name] = found = getattr(importlib.import_module(_PLACES[name]), name)
        return found


def __dir__() -> list[str]:
    return list(__all__)
