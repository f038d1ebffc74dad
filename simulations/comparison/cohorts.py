"""Hospitals of a comparison: given folders, or invented ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from client.cohort.left_out import LeftOut, NobodyUsable
from client.cohort.loading import load_cohort
from client.cohort.quality_refusals import CohortPaths, images_left_out
from client.cohort.site_cohort import SiteCohort
from client.cohort.split import SplitKey, simulated_key
from client.dicom.reasons import NOTICES
from client.site.cache import Cache, key_of
from client.site.quality_section import QualityRules
from client.training.cohort_features import site_of, with_features
from client.training.training_site import Site
from common.config.run_config import Cohort, RunConfig, Split
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelMap,
    LabelProbabilities,
    SurvivalCurve,
)
from common.platform.errors import CohortError, ConfigurationError
from common.tasks import task_of
from common.tasks.prognosis import follow_up

#: Images a hospital that the report may show.
_EXAMPLES = 6
#: Parts of a number's range that hospitals and examples are told apart by.
_THIRDS = 3
#: What an image is called, by its dimensions.
_KINDS = {2: "image", 3: "volume"}


@dataclass(frozen=True, kw_only=True)
class Hospitals:
    """Who takes part."""

    cohorts: tuple[SiteCohort, ...]
    left_out: Mapping[str, str]  # hospitals that cannot be used at all, and why


def hospital_folders(config: RunConfig, data: Path | None, out: Path) -> tuple[Path, ...]:
    """Return one folder a hospital; without `data` they are invented, once."""
    return _invented(config, out) if data is None else given_folders(data)


def given_folders(data: Path) -> tuple[Path, ...]:
    """Return the folders of hospitals that somebody gave; CohortError where there are none."""
    if data.is_file():
        message = f"{data} is a file, expected a folder with one folder per hospital."
        raise CohortError(message)
    if not data.is_dir():
        message = f"There is no folder {data}. Give --data a folder with one folder per hospital."
        raise CohortError(message)
    found = tuple(sorted(p for p in data.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not any(_is_hospital(folder) for folder in found):
        hint = f" {data} itself holds one: give its parent." if _is_hospital(data) else ""
        message = (
            f"No hospital in {data}: none of its {len(found)} folders holds a labels.csv. Each "
            f"hospital is a folder with DICOM files and a labels.csv.{hint}"
        )
        raise CohortError(message)
    return found


def _is_hospital(folder: Path) -> bool:
    return (folder / "labels.csv").is_file()


def _invented(config: RunConfig, out: Path) -> tuple[Path, ...]:
    if config.synthetic is None:
        message = (
            f"Run {config.name} has no synthetic hospitals. Give --data FOLDER, with one folder "
            "per hospital."
        )
        raise ConfigurationError(message)
    # Imported here: writing DICOM needs more than reading it.
    from simulations.synthetic.hospitals import GENERATION, demo_cohort, write_hospital

    wanted = config.synthetic
    spec = demo_cohort(wanted.modality, wanted.patients)
    key = key_of("synthetic", GENERATION, wanted.model_dump(mode="json"))
    folder = out / "hospitals" / key[:12]
    for hospital in spec.hospitals:
        # labels.csv is written last, so a hospital that has one is whole.
        if not (folder / hospital.name / "labels.csv").exists():
            write_hospital(folder, spec, hospital, wanted.seed)
    return tuple(folder / hospital.name for hospital in spec.hospitals)


def what_is_read(run: RunConfig, *, with_privacy: bool = True) -> dict[str, object]:
    """Return what of a configuration decides how patients are read, by where it stands.

    Runs in which all of it is equal read the same of the same folders.
    """
    model, features = run.model, run.model.network == "frozen_features"
    file = model.start and (model.start.sha256, model.start.names, model.width)
    looks = (model.backbone, model.projection, model.arguments, file)
    found: dict[str, object] = {
        "task": run.task,
        "cohort": run.cohort,
        "evaluation.unit": run.evaluation.unit,
        "model": looks if features else features,
    }
    # In a run with privacy rows speak of their own patient alone.
    return found | ({"privacy": run.privacy != "none"} if with_privacy else {})


def load_hospitals(
    config: RunConfig, folders: tuple[Path, ...], cache: Cache, tell: Callable[[str], None]
) -> Hospitals:
    """Read every hospital; one that cannot be used at all is told of and left out.

    CohortError when fewer than one is left.
    """
    task = task_of(config.task)
    found: list[SiteCohort] = []
    left_out: dict[str, str] = {}
    for folder in folders:
        try:
            refused = _left_out(folder, config, cache)
            cohort = load_cohort(folder, config, task, cache, None, refused)
            _check_somebody(cohort, folder)
        except CohortError as error:
            tell(f"{folder.name} is left out: {error}")
            left_out[folder.name] = str(error)
            continue
        cohort = with_examples(cohort, config)
        if config.model.network == "frozen_features":
            cohort = with_features(cohort, config, cache)
        found.append(cohort)
        tell(_summary(cohort, config))
    if not found:
        message = "No hospital can be used; the lines above say why."
        raise CohortError(message)
    return Hospitals(cohorts=tuple(found), left_out=left_out)


def _check_somebody(cohort: SiteCohort, folder: Path) -> None:
    """CohortError where nobody can be used, which a run with privacy tells no coordinator."""
    if not len(cohort.items):
        reasons = ", ".join(f"{n} x {why.name}" for why, n in cohort.reasons().most_common(4))
        first = "".join(f"; first {one.what}: {one.detail}" for one in cohort.unusable[:1])
        message = f"Nobody in {folder} can be used: {reasons or cohort.doubt}{first}."
        raise NobodyUsable(message, cohort.unusable)


def _left_out(folder: Path, config: RunConfig, cache: Cache) -> LeftOut:
    """Return the images that a site with the rules as they are written would leave out, too."""
    labels = folder / "labels.csv"
    paths = CohortPaths(data=folder, labels=labels, index=cache.index, cache=cache.folder)
    return LeftOut(images=images_left_out(paths, config, QualityRules()))


def _summary(cohort: SiteCohort, config: RunConfig) -> str:
    found = cohort.reasons()
    noticed = Counter({reason: count for reason, count in found.items() if reason in NOTICES})
    left_out, remarks = (
        ", ".join(f"{n} x {reason.name}" for reason, n in counts.most_common(4))
        for counts in (found - noticed, noticed)
    )
    patients, items = len(cohort.items), len(cohort.items.patient)
    text = f"{cohort.name}: {patients} patient{'s' * (patients != 1)}"
    if config.cohort.images is not None:
        text += f", {items} {_KINDS[config.cohort.images.dimensions]}{'s' * (items != 1)}"
    text += f"; not used: {left_out}" if left_out else ""
    return text + (f"; used, with a notice: {remarks}" if remarks else "")


def with_examples(cohort: SiteCohort, config: RunConfig) -> SiteCohort:
    """Return the cohort with images of a few test patients of seed 0 set aside for the report."""
    images = config.cohort.images
    if images is None or images.slide is not None or images.patch is not None:
        return cohort  # slides are shown whole; of volumes with patches no maps are kept
    test = cohort.split(config.cohort.split, simulated_key(0))["test"]
    seen: Counter[tuple[float, ...]] = Counter()
    order: list[tuple[int, tuple[float, ...], int]] = []
    for place in range(len(test)):
        outcome = outcome_of(test.target[test.items_of(place)[0]], config)
        seen[outcome] += 1
        order.append((seen[outcome], outcome, place))
    # The first of each outcome, then the second of each, so that few images show all outcomes.
    kept = {
        test.pseudonyms[place]: test.image[test.items_of(place)[0]].clone()
        for _, _, place in sorted(order)[:_EXAMPLES]
    }
    return replace(cohort, examples=kept)


def outcome_of(target: Tensor, config: RunConfig) -> tuple[float, ...]:
    """Return an item's outcome in short: labels, event seen or not, outlined or not, third."""
    match config.task.predicts:
        case LabelProbabilities():
            return tuple(target.nan_to_num(-1.0).tolist())
        case SurvivalCurve() | IncidenceCurves():
            return (float(follow_up(target).event),)
        case LabelMap():
            return (float(target.any()),)
        case BoundedNumber(low=low, high=high):
            return (float(torch.floor(_THIRDS * (target[0] - low) / (high - low))),)


def check_parts(
    cohorts: tuple[SiteCohort, ...],
    config: Cohort,
    seeds: Sequence[int],
    tell: Callable[[str], None],
) -> None:
    """Say which hospital has nobody to train or to test on, or too few to train.

    CohortError when that is so of all hospitals together: nothing could be learned or measured.
    """
    rules, smallest = config.split, config.smallest_cohort
    for part, held in (("train", "training"), ("test", "test")):
        lacking = list(_lacking(cohorts, rules, seeds, part))
        for place, names in lacking:
            if len(names) == len(cohorts):
                message = (
                    f"No hospital has {held} patients with {place}, expected at least 1. Look at "
                    "cohort.split and the split column of labels.csv."
                )
                raise CohortError(message)
        for name in dict.fromkeys(name for _, names in lacking for name in names):
            places = "; ".join(place for place, names in lacking if name in names)
            tell(f"{name} has no {held} patients with {places}")
    for cohort in cohorts:
        parts = cohort.parts(rules, simulated_key(seeds[0]))
        patients = list(parts.values()).count("train")
        if 0 < patients < smallest:
            few = f"fewer than the {smallest} of cohort.smallest_cohort"
            tell(f"{cohort.name} does not train: its training patients are {patients}, {few}")


def _lacking(
    cohorts: tuple[SiteCohort, ...], rules: Split, seeds: Sequence[int], part: str
) -> Iterator[tuple[str, list[str]]]:
    """Yield each split of the patients in which hospitals have nobody in a part, and which."""
    for seed in seeds:
        for fold in range(rules.folds or 1):
            names = [
                c.name
                for c in cohorts
                if part not in c.parts(rules, simulated_key(seed), fold).values()
            ]
            if names:
                yield f"seed {seed}" + (f" fold {fold}" if rules.folds else ""), names


def sites_of(
    cohorts: tuple[SiteCohort, ...],
    config: RunConfig,
    seed: int,
    fold: int,
    keys: Mapping[str, SplitKey] = MappingProxyType({}),
) -> dict[str, Site]:
    """Return the hospitals with this seed's and fold's patients in each part.

    `keys` are those of real hospitals, to repeat what they would do; without one, a hospital's
    patients are split by the seed.
    """
    return {
        cohort.name: site_of(cohort, config, keys.get(cohort.name, simulated_key(seed)), fold)
        for cohort in cohorts
    }
