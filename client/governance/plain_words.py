"""A run's configuration in plain words, for the person who approves it."""

from __future__ import annotations

from collections.abc import Mapping

from client.governance.policy import columns_of
from client.site.plain_text import shown
from common.config.measured_rounds import is_validated
from common.config.parts.extension import AT_SITES, ExtensionKind, distribution_of
from common.config.run_config import Extension, Images, RunConfig
from common.extensions.pinning import said
from common.privacy.measuring import is_told

_EXACTNESS = {
    "lossless": "bit by bit",
    "float16": "rounded to 16 bits, after the noise",
    "int8": "rounded to 8 bits, after the noise",
}
_KINDS: Mapping[ExtensionKind, str] = {
    "networks": "network",
    "tasks": "task, with its loss",
    "backbones": "frozen backbone",
    "losses": "loss",
    "transforms": "transform of training images",
    "metrics": "metric of released counts",
    "aggregators": "rule of aggregation",
}


def described(config: RunConfig) -> list[tuple[str, str]]:
    """Return what a run does here, line by line, each with its heading."""
    run = config.in_force()
    lines = [("name", run.name)]
    if run.description:
        lines.append(("purpose", run.description))
    lines += [
        ("question", run.task.question),
        ("reads", _reads(run)),
        ("trains", _trains(run)),
        *(("begins from", text) for text in _first_weights(run)),
        *(("code of others", _foreign(run, extension)) for extension in run.extensions),
        ("privacy", _privacy(run)),
        ("leaves", _update(run)),
        ("leaves", _counts(run)),
        ("leaves", _description(run)),
    ]
    if run.privacy != "none" and run.privacy.default_patients == "declared":
        told = "the exact number of training patients, not covered by epsilon"
        named = run.privacy.public_patients
        lines.append(("leaves", told + (f"; but for {', '.join(sorted(named))}" if named else "")))
    lines.append(("hash", run.fingerprint()))
    return [(heading, shown(text)) for heading, text in lines]


def _series(images: Images) -> str:
    """Return which series of a study are read, where rules choose them."""
    if not images.series:
        return ""
    names = ", ".join(rule.name for rule in images.series)
    trusted = " whatever their frame of reference" if images.registration == "trust" else ""
    return f", series {names} chosen by rules{trusted}"


def _cut(images: Images) -> str:
    """Return how slides and slices become images, where that is not one by one."""
    if images.slide is not None:
        return f", whole slides cut into tiles at {images.slide.mpp:g} microns a pixel"
    return ", each slice between those beside it" if images.neighbours is not None else ""


def _reads(run: RunConfig) -> str:
    parts: list[str] = []
    images = run.cohort.images
    if images is not None:
        grid = " x ".join(map(str, images.size))
        if images.patch is not None:
            grid = f"whole, by patches of {grid}"
        kinds = f" of {', '.join(images.modalities)}" if images.modalities else ""
        held = _series(images)
        raw = ", raw (for processing)" if images.presentation == "for_processing" else ""
        units = f", PET in {images.units}" if images.units is not None else ""
        files = "" if images.format == "dicom" else " in files without DICOM headers"
        parts.append(
            f"{images.dimensions}-D images{files}{kinds}{held}{_cut(images)}{raw}{units}, {grid}"
        )
    columns = columns_of(run)
    if columns:
        parts.append(f"columns {', '.join(columns)}")
    return "; ".join(parts) + f"; trains on {run.cohort.smallest_cohort} patients or more"


def _trains(run: RunConfig) -> str:
    training = run.training
    rounds = f"{training.rounds} round{'s' * (training.rounds != 1)}"
    steps = f"{training.local_steps} step{'s' * (training.local_steps != 1)}"
    batch = training.batch_patients
    patients = "all patients" if batch == "all" else f"{batch} patients"
    pool = run.model.pool
    pooled = "" if pool is None else f" with one answer a patient ({pool} of all pictures)"
    half = " in bfloat16" if training.precision == "bf16" else ""
    return f"{run.model.network}{pooled}, {rounds} of {steps}{half} with {patients} each"


def _first_weights(run: RunConfig) -> list[str]:
    start, train = run.model.start, run.model.train
    if start is None:
        return []
    last = None if isinstance(train, str) else train.last_blocks
    trained = {"all": "all of it is trained", "head": "the head alone is trained"}.get(
        str(train), f"the last {last} blocks and the head are trained"
    )
    if run.model.network == "frozen_features":
        trained = f"a frozen {run.model.backbone}; a head on its features is trained"
    return [
        f"{start.source} (licence: {start.licence}), a file of SHA-256 {start.sha256}; {trained}"
    ]


def _foreign(run: RunConfig, extension: Extension) -> str:
    of_it = [
        (kind, use)
        for kind, use in run.extension_uses()
        if distribution_of(use.name) == extension.distribution
    ]
    each = ", ".join(
        f"{use.name} ({_KINDS[kind]}{f', with {use.arguments}' if use.arguments else ''})"
        for kind, use in of_it
    )
    where = (
        "It runs here with all the rights of this site's service and could read every image"
        if any(kind in AT_SITES for kind, _ in of_it)
        else "It runs at the coordinator alone, on what was released"
    )
    return f"{each}: {said(extension)}. {where}"


def _privacy(run: RunConfig) -> str:
    privacy = run.privacy
    if privacy == "none":
        return "NONE: updates leave without noise and may give patients away"
    delta = "1 / (10 x patients)" if privacy.delta == "per_site" else f"{privacy.delta:g}"
    return f"by patient, epsilon {privacy.epsilon:g} at delta {delta} for the whole run"


def _update(run: RunConfig) -> str:
    noise = "" if run.privacy == "none" else "clipped by patient and noised, "
    return f"each round, the network's update: {noise}{_EXACTNESS[run.exchange.encoding]}"


def _description(run: RunConfig) -> str:
    """Return what is told of the cohort itself (common/messages/cohort_statistics.py)."""
    what = "classes or events, split"
    if run.cohort.in_dicom:
        what += ", modality, age, pixel spacing, brightness"
    limit = f"none of fewer than {run.evaluation.smallest_cell} patients"
    if run.privacy != "none":
        limit = "with the noise of policy.statistics_noise, and where that is 0 none of them"
    elif run.evaluation.count_noise > 0:
        limit = f"each with noise of {run.evaluation.count_noise:g} patients"
    return (
        "once, before the first round, counts of what was found, used and left out and why, and "
        f"by {what}: {limit} (policy.statistics: false keeps them here)"
    )


def _counts(run: RunConfig) -> str:
    rules = run.evaluation
    if rules.count_noise > 0 and not is_told(run):
        return (
            f"nothing that measures the model: noise of {rules.count_noise:g} patients on counts "
            "would cost more than the run's epsilon"
        )
    if rules.count_noise > 0:
        when = _measured(run)
        return (
            f"{when}, counts that measure the model, each with noise of {rules.count_noise:g} "
            "patients, charged to the ledger; no sums"
        )
    if run.privacy != "none":
        return "nothing that measures the model: evaluation.count_noise is 0"
    return (
        f"counts that measure the model, none of fewer than {rules.smallest_cell} patients, and "
        "sums over as many (policy.metrics: noised keeps them here)"
    )


def _measured(run: RunConfig) -> str:
    validated = sum(is_validated(run, n) for n in range(1, run.training.rounds + 1))
    return "once, at the end" if not validated else f"in {validated} rounds and at the end"
