"""Short fixed runs of every task and every algorithm, and what they gave when they were right.

    python -m tests.simulations.golden            say what differs from golden.json
    python -m tests.simulations.golden --write    write golden.json anew, on purpose

A change of the file belongs in the commit that changes the results, which says why they may.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from client.cohort.site_cohort import SiteCohort
from common.config.run_config import RunConfig, parse_config
from common.data.weights import Weights
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison, ComparisonPlan, ComparisonProgress, compare
from simulations.report.results import results
from tests.privacy.made_up import volumes_of_patients
from tests.simulations.comparisons import TASKS, cohort_of

FILE = Path(__file__).with_suffix(".json")
#: Krum wants 2 f + 3 sites for f = 1 that may be faulty.
SITES = ("east", "mid", "north", "south", "west")
_PATIENTS = 26
_SIZES = {"segmentation": "[16, 16]", "volume": "[8, 16, 16]"}
_SGD = {"optimizer": "sgd", "learning_rate": 0.1}
_PRIVACY = "{unit: patient, epsilon: 8.0, delta: 0.001"
_AGREED = f"{_PRIVACY}, default_patients: 14"
#: Every hospital has some patients in each part.
_SPLIT = "split: {test_fraction: 0.3, validation_fraction: 0.25}"
_TABLE = f"table: {{numbers: [{{column: age}}, {{column: crp}}]}}, {_SPLIT}"

Numbers = dict[str, object]


def config_of(kind: str = "binary", **sections: str) -> RunConfig:
    """Return a small run of a kind of task, with some sections as given."""
    network = "unet" if kind in _SIZES else "small_cnn"
    size = _SIZES.get(kind, "[16, 16]")
    parts = {
        "task": TASKS[kind],
        "cohort": f"{{images: {{size: {size}}}, {_SPLIT}}}",
        "model": f"{{network: {network}, width: 8}}",
        "training": training(),
        "evaluation": "{bootstrap: 10, smallest_cell: 1}",
        "personalisation": "{method: none}",
        "privacy": "none",
        **sections,
    }
    return parse_config("name: golden\n" + "\n".join(f"{k}: {v}" for k, v in parts.items()))


def training(**more: object) -> str:
    """Return a training section: three rounds of two plain steps, or as given."""
    rules = {"rounds": 3, "local_steps": 2, "batch_patients": 4, **_SGD, **more}
    return json.dumps(rules)


def cohorts(config: RunConfig, folder: Path | None = None) -> tuple[SiteCohort, ...]:
    """Return patients whose images, and table if any, tell something of the outcome.

    Volumes of patches lie in `folder`.
    """
    images = config.cohort.images
    with_images = config if images is not None else config_of()
    made = [cohort_of(with_images, name, n, _PATIENTS) for n, name in enumerate(SITES)]
    if images is not None and images.patch is not None and folder is not None:
        return tuple(_volumes(one, images.patch, folder) for one in made)
    return tuple(_telling(config, one) for one in made)


def _volumes(cohort: SiteCohort, patch: tuple[int, ...], folder: Path) -> SiteCohort:
    """Return outlined images of extents of their own in place of the cohort's."""
    own = folder / cohort.name
    own.mkdir(parents=True)
    seed = SITES.index(cohort.name)
    items = volumes_of_patients(own, (1,) * len(cohort.items), patch, seed=seed)
    return replace(cohort, items=replace(items, pseudonyms=cohort.items.pseudonyms))


def _telling(config: RunConfig, cohort: SiteCohort) -> SiteCohort:
    items = cohort.items
    generator = torch.Generator().manual_seed(len(cohort.name))
    signal = _signal(config, items.target)
    image = items.image.clone()
    if config.task.kind == "segmentation":
        image[:, 0] += (items.target > 0).float()
    else:
        image[:, 0, :8] += 0.2 * signal[:, None, None]
    rules = config.cohort.table
    if rules is None:
        return replace(cohort, items=replace(items, image=image))
    table = torch.randn((len(image), rules.width), generator=generator)
    table[:, 0] += signal
    if config.cohort.images is None:
        image = torch.zeros((len(image), 0))
    table[::3, :2] = torch.tensor([0.0, 1.0])  # a missing value: zero, and its mark
    return replace(cohort, items=replace(items, image=image, table=table))


def _signal(config: RunConfig, target: Tensor) -> Tensor:
    """Return one number an item that goes with its outcome."""
    if config.task.kind == "segmentation":
        return torch.zeros(len(target))
    if config.task.labels == ("a", "b", "c", "d"):  # grades
        return target.argmax(dim=1).float()
    return torch.nan_to_num(target.float()).flatten(1)[:, 0]


FEDERATED: tuple[Arm, ...] = ("federated",)
PERSONALISED: tuple[Arm, ...] = ("personalised",)
PRIVATE: tuple[Arm, ...] = ("federated_dp",)

#: More than plain steps where these learn nothing in three rounds, or would repeat another case.
STEPS: Mapping[str, dict[str, object]] = {
    # Not AdamW: a bias before a norm has a gradient of rounding errors alone, which it would make
    # whole steps of, other ones on another processor.
    "segmentation": {"learning_rate": 0.2, "local_steps": 4},
    "volume": {"learning_rate": 0.2, "local_steps": 4},
    "fixed_horizon": {"local_steps": 3},
    "ordinal": {"local_steps": 30},
}

_NARROW = "{network: unet, width: 2}"
_OUTLINED = training(rounds=2, local_steps=2, learning_rate=0.2)
_PATCHES = f"{{images: {{patch: [16, 16]}}, {_SPLIT}}}"
_TIME = "time: {frames: 3, as: difference}"

#: By name: the run, and the arms that are trained.
CASES: Mapping[str, tuple[RunConfig, tuple[Arm, ...]]] = {
    **{
        f"task-{kind}": (config_of(kind, training=training(**STEPS.get(kind, {}))), FEDERATED)
        for kind in TASKS
    },
    "arms": (config_of(), ("local", "pooled", "federated")),
    "input-table": (config_of(cohort=f"{{{_TABLE}}}", model="{network: table}"), FEDERATED),
    "input-fusion": (config_of(cohort=f"{{images: {{size: [16, 16]}}, {_TABLE}}}"), FEDERATED),
    "steps-adamw": (config_of(training=training(optimizer="adamw", learning_rate=0.01)), FEDERATED),
    "steps-momentum": (config_of(training=training(momentum=0.5)), FEDERATED),
    "steps-decay": (config_of(training=training(weight_decay=0.5)), FEDERATED),
    "steps-cosine": (config_of(training=training(schedule="cosine")), FEDERATED),
    "steps-augmented": (config_of(training=training(augment=True)), FEDERATED),
    "steps-dropout": (config_of(model="{network: small_cnn, width: 8, dropout: 0.5}"), FEDERATED),
    "steps-fedprox": (config_of(training=training(proximal=5.0)), FEDERATED),
    "rounds-average": (config_of(training=training(average=0.8)), FEDERATED),
    "rounds-last": (
        config_of(training=training(rounds=6, learning_rate=0.8), selection="{rule: last}"),
        FEDERATED,
    ),
    "rounds-best": (config_of(training=training(rounds=6, learning_rate=0.8)), FEDERATED),
    "rounds-patience": (
        config_of(training=training(rounds=6, learning_rate=0.8), selection="{patience: 1}"),
        FEDERATED,
    ),
    "server-fedavgm": (config_of(aggregation="{server: {kind: fedavgm}}"), FEDERATED),
    "server-fedadam": (
        config_of(aggregation="{server: {kind: fedadam, learning_rate: 0.01}}"),
        FEDERATED,
    ),
    "server-fedyogi": (
        config_of(aggregation="{server: {kind: fedyogi, learning_rate: 0.01}}"),
        FEDERATED,
    ),
    "rule-weights": (config_of(aggregation="{weights: {east: 5.0}}"), FEDERATED),
    "rule-scaffold": (config_of(aggregation="{rule: scaffold}"), FEDERATED),
    "rule-median": (config_of(aggregation="{rule: median}"), FEDERATED),
    "rule-trimmed-mean": (config_of(aggregation="{rule: trimmed_mean}"), FEDERATED),
    "rule-krum": (config_of(aggregation="{rule: krum}"), FEDERATED),
    "rule-multi-krum": (config_of(aggregation="{rule: multi_krum}"), FEDERATED),
    "rule-flower": (
        config_of(aggregation="{rule: flower, strategy: FedAdagrad, arguments: {eta: 0.01}}"),
        FEDERATED,
    ),
    "own-norm": (config_of(personalisation="{method: local_norm}"), PERSONALISED),
    "own-head": (config_of(personalisation="{method: personal_head}"), PERSONALISED),
    "own-fine-tuned": (
        config_of(personalisation="{method: fine_tune, steps: 10, learning_rate: 0.05}"),
        PERSONALISED,
    ),
    "input-time": (
        config_of(cohort=f"{{images: {{size: [16, 16], {_TIME}}}, {_SPLIT}}}"),
        FEDERATED,
    ),
    "input-patches": (
        config_of("volume", cohort=_PATCHES, model=_NARROW, training=_OUTLINED),
        FEDERATED,
    ),
    "private": (config_of(privacy=f"{_AGREED}}}"), PRIVATE),
    "private-flat": (config_of(privacy=f"{_AGREED}, clipping: flat, clip_norm: 2.0}}"), PRIVATE),
    "private-sampled": (config_of(privacy=f"{_AGREED}, sampling_rate: 0.5}}"), PRIVATE),
    "private-divisor": (config_of(privacy=f"{_PRIVACY}, default_patients: 100}}"), PRIVATE),
    "private-segmentation": (config_of("segmentation", privacy=f"{_AGREED}}}"), PRIVATE),
    "private-patches": (
        config_of(
            "volume",
            cohort=_PATCHES,
            model=_NARROW,
            training=training(rounds=1, local_steps=1),
            privacy=f"{_AGREED}}}",
        ),
        PRIVATE,
    ),
}


def numbers_of(name: str, folder: Path) -> dict[str, Numbers]:
    """Run a case and return its numbers, by arm."""
    config, arms = CASES[name]
    found = compare(
        config,
        cohorts(config, folder / "images"),
        ComparisonPlan(arms=arms, seeds=(0,), folder=folder),
        ComparisonProgress(),
    )
    return {arm: _numbers(found, arm) for arm in arms}


def _numbers(found: Comparison, arm: Arm) -> Numbers:
    outcome = found.outcomes[arm, 0][0]
    told = results(found)["arms"]
    assert isinstance(told, dict)
    told_of_arm = told[arm]
    assert isinstance(told_of_arm, dict)
    losses = [float(scores.loss.mean()) for scores in outcome.test.values()]
    return {
        "headline": told_of_arm["mean"],
        "epsilon": told_of_arm["epsilon"],
        "test_loss": losses,
        "validation_loss": [float(losses.mean()) for losses in outcome.validation.values()],
        "round_scores": [record.score for record in outcome.rounds],
        "chosen_round": outcome.chosen_round,
        "weights": _summary(outcome.weights),
    }


def _summary(weights: Weights) -> list[float]:
    """Return two numbers that nearly every change of any weight changes."""
    flat = torch.cat([torch.zeros(1), *(weights[name].flatten() for name in sorted(weights))])
    wave = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [float(flat.double().norm()), float(flat.double() @ wave)]


def differences(found: object, expected: object, place: str = "") -> list[str]:
    """Return where numbers differ beyond rounding.

    Losses and weights may differ in the fifth digit, as processors add in another order;
    headlines by 0.001, as two patients of nearly the same score may change places.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return [f"{place}: {sorted(found)} instead of {sorted(expected)}"]
        return [d for k in found for d in differences(found[k], expected[k], f"{place}/{k}")]
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{place}: {len(found)} numbers instead of {len(expected)}"]
        return [
            d
            for i, (f, e) in enumerate(zip(found, expected, strict=True))
            for d in differences(f, e, f"{place}/{i}")
        ]
    if isinstance(found, float) and isinstance(expected, float):
        near = place.endswith("headline")
        same = math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-3 if near else 1e-6)
        return [] if same else [f"{place}: {found} instead of {expected}"]
    return [] if found == expected else [f"{place}: {found} instead of {expected}"]


def main() -> None:
    """Run every case; write the file, or say what differs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: numbers_of(name, Path(folder) / name) for name in CASES}
    expected = json.loads(FILE.read_text()) if FILE.exists() else {}
    found |= {name: numbers for name, numbers in expected.items() if "@" in name}
    for line in differences(found, expected):
        sys.stdout.write(f"{line}\n")
    if "--write" in sys.argv[1:]:
        FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
