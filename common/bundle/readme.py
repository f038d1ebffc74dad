"""A bundle's README.md: the model card for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from common.bundle.card import Card
from common.bundle.evidence import CalibrationEvidence, ConfusionMatrix, Evidence
from common.bundle.origin import KINDS, count_text, origin_text
from common.bundle.running import running_text
from common.bundle.words import INTENDED_USE, NOT_FOR, input_json, modalities, patients_words
from common.config.parts.units import NO_UNIT, in_brackets
from common.config.run_config import Images, RunConfig
from common.metrics.constant_predictor import beside
from common.metrics.intervals import Estimate
from common.metrics.names import metric_words

#: What was measured, as people read it.
_ARMS = {
    "test": "Test patients",
    "validation": "Validation patients",
    "federated_dp": "Federated, with privacy",
    "federated": "Federated",
    "pooled": "Pooled",
}
#: More columns than this cannot be read side by side; card.json has them all.
_COLUMNS = 6


def readme(config: RunConfig, card: Card, files: Mapping[str, str]) -> str:
    """Return README.md; `files` are the bundle's files that stand fast, with their SHA-256."""
    sections = [
        _head(config),
        _use(config),
        _data(config, card.evidence),
        _first_weights(config),
        _performance(card),
        _subgroups(card.evidence),
        _calibration(card.evidence),
        _confusion(card.evidence),
        _survival(card.evidence),
        running_text(config),
        _CHANGE,
        "" if card.origin is None else origin_text(card.origin).strip(),
        f"## Privacy\n\n{card.privacy.strip() or 'No privacy claim.'}",
        _reporting(config, card),
        _hashes(config, card, files),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(config: RunConfig) -> str:
    inputs = "; ".join(_input_words(config))
    labels = ", ".join(map(_quoted, config.task.labels))
    return f"""\
# {config.name}

{_without_html(config.description) or "A model trained by several hospitals."}

It takes: {inputs}. It gives: {config.task.meaning}. Labels: {labels}.
{patients_words(config)}"""


def _input_words(config: RunConfig) -> list[str]:
    words = []
    for entry in input_json(config):
        if entry["name"] == "table":
            columns = entry["columns"]
            assert isinstance(columns, Sequence)  # noqa: S101  # we made it
            words.append(f"a table of {', '.join(_quoted(str(c)) for c in columns)}")
        else:
            images = config.cohort.images
            assert images is not None  # noqa: S101  # there is an image entry
            words.append(_image_words(images))
    return words


def _image_words(images: Images) -> str:
    grid = " x ".join(str(side) for side in images.size)
    kinds = ", ".join(modalities(images)) or "modality not recorded"
    if images.patch is not None:
        grid = f"its own extent, by patches of {grid}"
    held = f"{images.input_channels} channel(s)"
    if images.time is not None and images.time.form != "items":
        taken = "what changed since the first" if images.time.form == "difference" else "in order"
        held += f" of {images.time.frames} pictures of each place at several times ({taken})"
    if images.channel_names:
        held += f" ({', '.join(images.channel_names)}, all on the grid of "
        held += f"{images.channel_names[images.reference]}; one that may be absent is zeros)"
    return f"an image ({kinds}) of {grid}, {held}, {images.intensity}"


def _use(config: RunConfig) -> str:
    needs = "a mask" if config.task.outlines else "an outcome"
    return f"""\
## What it is for, and what not

For: {INTENDED_USE}

Not for: {NOT_FOR}

Measure it on patients of your own, with {needs} that you trust, before you rely on any of it."""


def _data(config: RunConfig, evidence: Evidence) -> str:
    cell = config.evaluation.smallest_cell
    if not evidence.data:
        return "## Whose patients\n\nNot recorded."
    rows = [
        (
            name,
            count_text(site.training_patients, site.training_patients_are),
            count_text(site.test_patients, site.test_patients_are),
        )
        for name, site in sorted(evidence.data.items())
    ]
    return f"""\
## Whose patients

{_table(("site", "training patients", "test patients"), rows)}

A dash: not told, or fewer than {cell}. {KINDS}
Age, sex, machines and dates of acquisition of each site:
not recorded, as far as the subgroups below do not say."""


def _first_weights(config: RunConfig) -> str:
    start = config.model.start
    if start is None:
        return ""
    frozen = config.model.network == "frozen_features"
    heading = "What it looks with" if frozen else "What it began from"
    return f"""\
## {heading}

Public weights: {_without_html(start.source)}. Their licence: {_without_html(start.licence)}; see
what it asks of a model made from them. SHA-256 of the file: {start.sha256}."""


def _performance(card: Card) -> str:
    if not card.metrics:
        return "## How well it does\n\nNothing was measured."
    parts = []
    for arm, sites in card.metrics.items():
        names = list(dict.fromkeys(n for values in sites.values() for n in values))[:_COLUMNS]
        rows = [
            (site, *(_estimate(values.get(name)) for name in names))
            for site, values in sorted(sites.items(), key=lambda item: (item[0] != "all", item[0]))
        ]
        constant = beside({n: e.to_json() for n, e in sites.get("all", {}).items()})
        parts.append(
            "\n\n".join(
                filter(
                    None,
                    (
                        f"{_ARMS.get(arm, arm)}:",
                        _table(("site", *map(metric_words, names)), rows),
                        constant,
                    ),
                )
            )
        )
    return (
        "## How well it does\n\nOn patients that were not trained on, with 95 % intervals; "
        "`card.json` has every metric.\n\n" + "\n\n".join(parts)
    )


def _subgroups(evidence: Evidence) -> str:
    if not evidence.subgroups:
        return f"## By subgroup\n\n{evidence.no_subgroups}"
    names = list(dict.fromkeys(n for g in evidence.subgroups for n in g.metrics))[:_COLUMNS]
    rows = [
        (
            g.column,
            g.value or "empty",
            _count(g.patients),
            *(_estimate(g.metrics.get(name)) for name in names),
        )
        for g in evidence.subgroups
    ]
    return (
        "## By subgroup\n\nTest patients of all sites together, from counts as sites release them: "
        "scores are joined to ranges of several patients, so the calibration error is too large in "
        "small groups. A dash: too few to be told.\n\n"
        + _table(("column", "value", "patients", *map(metric_words, names)), rows)
    )


def _calibration(evidence: Evidence) -> str:
    if not evidence.calibration:
        return f"## Calibration\n\n{evidence.no_calibration}"
    parts = [_calibrated(one) for one in evidence.calibration]
    if any(one.unit is not None for one in evidence.calibration):
        return (
            "## Calibration\n\nTest patients of all sites, in public parts of the range by what "
            "was predicted: ranges of several patients, each with its mean prediction and the mean "
            "of what was true. Intercept and slope are of the line from predicted to true numbers: "
            "0 and 1 where a prediction means what it says, a slope below 1 where predictions lie "
            "too far apart.\n\n" + "\n\n".join(parts)
        )
    return (
        "## Calibration\n\nTest patients of all sites, in public bins of probability. The "
        "intercept is below 0 where risks are told too high, the slope below 1 where they are told "
        "too far apart; both are fitted to the bins, which are coarse: several patients of one "
        "outcome count as one range. At another hospital: fit them again.\n\n" + "\n\n".join(parts)
    )


def _confusion(evidence: Evidence) -> str:
    if not evidence.confusion:
        return ""
    return (
        "## Confusion matrix\n\nTest patients of all sites: a row for what is true, a column for "
        "what was predicted. Cells of few patients are told together, and stand with the fewest "
        "and the most that they may hold.\n\n" + "\n\n".join(map(_matrix, evidence.confusion))
    )


def _survival(evidence: Evidence) -> str:
    if not evidence.survival:
        return ""
    rows = [
        (f"{time:g}", _figure(one.value), f"{_figure(one.low)} to {_figure(one.high)}")
        for time, one in evidence.survival.items()
    ]
    return (
        "## Survival of these patients\n\nKaplan and Meier's, of test patients of all sites that "
        "could tell it; hold the model's curves against it.\n\n"
        + _table(("time", "without event", "95 % interval"), rows)
    )


def _matrix(one: ConfusionMatrix) -> str:
    rows = [
        (_quoted(name), *(_between(*cell) for cell in zip(*row, strict=True)))
        for name, *row in zip(one.classes, one.counts, one.least, one.most, strict=True)
    ]
    noise = f"\n\nNoise of {one.noise:.3g} patients is on each count." if one.noise else ""
    return _table(("true", *(f"predicted {_quoted(n)}" for n in one.classes)), rows) + noise


def _between(count: float, least: float, most: float) -> str:
    between = "" if least == most else f" ({least:g} to {most:g})"
    return f"{count:.4g}{between}"


def _calibrated(one: CalibrationEvidence) -> str:
    unit = in_brackets(one.unit or NO_UNIT)
    rows = [
        (f"{part.patients:g}", f"{part.predicted:.3f}", f"{part.seen:.3f}") for part in one.bins
    ]
    return (
        f"{_quoted(one.label)}: intercept {_figure(one.intercept)}, slope {_figure(one.slope)}\n\n"
        + _table(("patients", f"mean prediction{unit}", f"seen{unit}"), rows)
    )


_CHANGE = """\
## What a new round changes

A later round, or a run that goes on, changes the weights and nothing else: inputs, outputs, network
and configuration are fixed by the configuration's hash, and another configuration is another model.
With new weights the following is to be done again: the metrics by site and subgroup, each site's
calibration and thresholds (they belong to the weights' hash), and the local acceptance. The metrics
that must not fall, and by how much they may, are for whoever uses it to write down before: not
recorded here. An older bundle stays as it is, so that going back is copying a folder."""


def _reporting(config: RunConfig, card: Card) -> str:
    """Return what TRIPOD+AI and CLAIM ask for, as far as a run knows it."""
    measured = sorted(card.metrics) or ["nothing"]
    split = config.cohort.split
    by = (
        f"column {split.column}"
        if split.column
        else (
            f"{split.folds} folds"
            if split.folds
            else f"{split.test_fraction:g} held out for testing"
        )
    )
    rows = [
        ("source of data", "images and tables of the sites above; dates not recorded"),
        ("eligibility", f"patients with usable data; modalities: {_modalities(config)}"),
        ("outcome", f"{config.task.meaning}; who assessed it, and whether blinded: not recorded"),
        ("missing values", "0 beside an indicator, for clinical columns"),
        ("split", f"by patient: {by}"),
        ("sample size", "no calculation is recorded"),
        ("model", f"{config.model.network}, {config.training.rounds} rounds at most"),
        ("measured", ", ".join(measured)),
        ("external validation", "none is recorded: test patients are of the sites that trained"),
        ("fairness", "subgroups above" if card.evidence.subgroups else "not recorded"),
        ("approval, registration, funding", "not recorded"),
        ("code", "card.json names the versions"),
    ]
    return "## What reports ask for\n\nItems of TRIPOD+AI and CLAIM that a run knows.\n\n" + _table(
        ("item", "here"), rows
    )


def _modalities(config: RunConfig) -> str:
    images = config.cohort.images
    return "none" if images is None else ", ".join(modalities(images)) or "any"


def _hashes(config: RunConfig, card: Card, files: Mapping[str, str]) -> str:
    rows = [(name, f"`{value}`") for name, value in sorted(files.items())]
    return f"""\
## Hashes

Configuration `{config.fingerprint()}`, seed {card.seed}, round {card.round}. `card.json` holds the
whole configuration, and the hash of this file too.

{_table(("file", "SHA-256"), rows)}"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Return a text without what would break the table, or act in it."""
    return _without_html(text.replace("|", "/").replace("\n", " "))


def _without_html(text: str) -> str:
    """Return a text whose tags are shown, not followed."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _quoted(name: str) -> str:
    """Return a name that a configuration gave as it stands, in as many ticks as it needs."""
    ticks = "`"
    while ticks in name:
        ticks += "`"
    space = " " if "`" in name else ""
    return f"{ticks}{space}{name}{space}{ticks}"


def _estimate(value: Estimate | None) -> str:
    if value is None or math.isnan(value.value):
        return "-"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _figure(value: float) -> str:
    return "not to be had" if math.isnan(value) else f"{value:.2f}"
