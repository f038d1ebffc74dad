"""The section `policy` of site.yaml: what a hospital allows."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from common.config.parts.extension import is_extension
from common.config.parts.section import Part, PositiveFloat, PositiveInt
from common.config.run_config import NetworkName

_TASKS = ("diagnosis", "prognosis", "segmentation", "extension")
_SHA256 = re.compile("[0-9a-f]{64}")


def _listed(value: object) -> object:
    """Return `any` or a tuple of names; one name without brackets is a likely slip."""
    if value == "any":
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    example = value if isinstance(value, str) else "age, sex"
    message = f"expected any, or a list such as [{example}]"
    raise ValueError(message)


def _among(names: tuple[str, ...], *, extensions: bool = False) -> BeforeValidator:
    def check(value: object) -> object:
        found = _listed(value)
        for name in found if isinstance(found, tuple) else ():
            if name not in names and not (extensions and is_extension(name)):
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]}?" if near else ""
                message = f"{name!r} is none of {', '.join(names)}.{hint}"
                raise ValueError(message)
        return found

    return BeforeValidator(check)


def _fingerprints(value: object) -> object:
    """Return fingerprints in the one form that they are compared in."""
    found = _listed(value)
    if not isinstance(found, tuple):
        return found
    plain = tuple(name.replace(":", "").lower() for name in found)
    for given, name in zip(found, plain, strict=True):
        if not _SHA256.fullmatch(name):
            message = (
                f"{given!r} is no fingerprint, expected the SHA-256 of the coordinator's "
                "certificate, 64 digits of 0-9 a-f, as `wardround-site status` shows it"
            )
            raise ValueError(message)
    return plain


_Names = Annotated[tuple[str, ...] | Literal["any"], BeforeValidator(_listed)]
_Tasks = Annotated[tuple[str, ...] | Literal["any"], _among(_TASKS)]
_Networks = Annotated[
    tuple[str, ...] | Literal["any"], _among(get_args(NetworkName), extensions=True)
]
_Coordinators = Annotated[tuple[str, ...] | Literal["any"], BeforeValidator(_fingerprints)]


class PolicyRules(Part):
    """What runs may ask of this site; what is not allowed is refused before any patient is read.

    The descriptions stand in site.yaml above their keys.
    """

    private_only: bool = Field(
        strict=True,
        default=True,
        description="Take part in runs with patient-level privacy only. With false, updates of "
        "other runs leave without noise, and may give patients away.",
    )
    approval: Literal["manual", "automatic"] = Field(
        default="manual",
        description="manual: somebody here types `wardround-site approve` for each configuration. "
        "automatic: whatever keeps to this policy is taken.",
    )
    largest_epsilon_per_run: PositiveFloat = Field(
        default=3.0,
        description="Privacy that one run may state that it spends on these patients, at most. "
        "Rounds that it asks for again are charged beside; largest_epsilon_per_cohort ends it.",
    )
    largest_epsilon_per_cohort: PositiveFloat = Field(
        default=8.0,
        description="Privacy that all runs together may spend on these patients, for ever. "
        "Raising it is a decision about patients who are in the ledger already.",
    )
    cohort_delta: float = Field(
        strict=True,
        default=1e-5,
        gt=0,
        le=1e-3,
        description="The delta at which that sum is taken: the chance that the bound does not "
        "hold. Well below one over the number of patients.",
    )
    largest_delta: float = Field(
        strict=True,
        default=0.01,
        gt=0,
        le=0.1,
        description="The largest delta that a run may state for itself.",
    )
    smallest_cohort: PositiveInt = Field(
        default=10, description="A run must not train on fewer patients of a site than this."
    )
    smallest_cell: PositiveInt = Field(
        default=5, description="Counts of fewer patients than this do not leave without noise."
    )
    metrics: Literal["any", "noised", "none"] = Field(
        default="noised",
        description="Counts that measure a model and may leave. noised: with Gaussian noise that "
        "is charged to the ledger (runs with evaluation.count_noise). any: runs without privacy "
        "may have exact counts, too, of smallest_cell patients and more, and sums over them; "
        "weights that were made for it can single a patient out by these. none: no counts. "
        "A private run gets noised counts only, whatever is said here.",
    )
    statistics: bool = Field(
        strict=True,
        default=True,
        description="Tell the coordinator once before a run how many studies and patients were "
        "found, used and left out and why, classes, and histograms of age, pixel spacing and "
        "brightness: to runs without privacy counts above smallest_cell, to private runs with "
        "statistics_noise only. With false, runs go on without.",
    )
    statistics_noise: float = Field(
        strict=True,
        default=0.0,
        ge=0,
        le=1e6,
        description="Standard deviation of Gaussian noise on those counts, in patients, charged "
        "to the ledger. With 0, private runs are told none of them.",
    )
    tell_patients: Annotated[bool, Field(strict=True)] | Literal["without_privacy"] = Field(
        default="without_privacy",
        description="Tell the coordinator exactly how many patients would train: without_privacy "
        "(in runs without privacy only), true, or false. Private runs that tell the count with "
        "each update (default_patients: declared) are refused but with true.",
    )
    tell_failures: Annotated[bool, Field(strict=True)] | Literal["without_privacy"] = Field(
        default="without_privacy",
        description="Tell the coordinator where a request failed: the kind of the error and the "
        "line of Wardround's code, as in 'ValueError at client/cohort/decode.py:88', never its "
        "message. without_privacy (in runs without privacy only), true, or false: that it failed "
        "and no more. Which line it was can depend on a patient, and no noise covers it.",
    )
    allow_files: bool = Field(
        strict=True,
        default=False,
        description="Take part in runs whose images are files that labels.csv names (NIfTI, PNG, "
        "JPEG, TIFF, slides). Such files do not say whose they are: only the table does, and no "
        "rule of quality looks at them.",
    )
    coordinators: _Coordinators = Field(
        default="any",
        description="any: the one that this site joined. Or a list of the SHA-256 fingerprints of "
        "their certificates.",
    )
    tasks: _Tasks = Field(default="any", description=f"any, or a list of {', '.join(_TASKS)}.")
    targets: _Names = Field(
        default="any",
        description="Columns of labels.csv that a run may learn to predict: any, or a list.",
    )
    columns: _Names = Field(
        default="any",
        description="Other columns of labels.csv that a run may read: any, or a list; [] for none.",
    )
    networks: _Networks = Field(
        default="any", description="Networks that may be trained here: any, or a list."
    )
