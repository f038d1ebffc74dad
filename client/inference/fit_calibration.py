"""Fitting of a model's calibration on this site's own patients; nothing of it leaves.

Public: CalibrationOptions, calibrate, fit.

Patients are those of the run's test part at this site, and of its validation part where the run
chose nothing by it (selection.rule: last): the same key gives the same parts as in the run, this
site's own for a run between hospitals, that of the seed for a simulation. Who was trained on never
counts, whatever the split says since (`client.inference.calibration.trained_on`). Everything is by
patient: one who has several images that were scored each by itself counts with the first of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.quality_refusals import CohortPaths, images_left_out
from client.cohort.site_cohort import SiteCohort, patients_at
from client.cohort.split import Part, SplitKey, simulated_key, site_key
from client.inference.calibration.label_questions import class_probabilities, true_classes
from client.inference.calibration.out_of_distribution import distances, embedded
from client.inference.calibration.platt_scaling import fit_lines
from client.inference.calibration.prediction_sets import threshold
from client.inference.calibration.site_calibration import SiteCalibration, hashed
from client.inference.calibration.trained_on import trained_on
from client.inference.trained_model import TrainedModel
from client.privacy.isolation import Isolation
from client.site.cache import Cache
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.withdrawals import withdrawn
from common.config.run_config import RunConfig
from common.config.tasks.forms import BoundedNumber
from common.data.kept_items import Items, taken
from common.data.sample import Batch, Patients, patient_mean, take
from common.models.bags import pools
from common.platform.errors import CohortError, ConfigurationError
from common.tasks import task_of

#: Fewer patients than this say too little: one of twenty is 5 %.
FEWEST_PATIENTS = 20
#: Training images that others are compared with, at most; of large sites every n-th.
_MOST_REFERENCE = 1000
_CHUNK = 16


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What the site's admin may choose."""

    coverage: float = 0.9  # of patients of a class whose set holds it
    flagged: float = 0.05  # share of usual studies that may be called unlike training

    def __post_init__(self) -> None:
        """Refuse what promises nothing."""
        if not 0.5 <= self.coverage < 1:
            message = f"Expected coverage={self.coverage} from 0.5 to less than 1, such as 0.9."
            raise ConfigurationError(message)
        if not 0 <= self.flagged <= 0.5:
            message = f"Expected unlike={self.flagged} from 0 to 0.5, such as 0.05."
            raise ConfigurationError(message)


def calibrate(home: Home, model: TrainedModel, wishes: CalibrationOptions) -> SiteCalibration:
    """Fit the model's calibration on the site's own patients.

    CohortError when too few of them were not trained on; nothing is kept then.
    """
    site, config = load_site_config(home.site_yaml), model.config
    cache = Cache(home.cache, home.index)
    with cache.in_use():
        gone = withdrawn(home)
        paths = CohortPaths(
            data=site.data, labels=site.labels_csv, index=home.index, cache=home.cache
        )
        left_out = LeftOut(withdrawn=gone, images=images_left_out(paths, config, site.quality))
        cohort = load_cohort(
            site.data,
            config,
            task_of(config.task),
            cache,
            site.labels_csv,
            left_out,
            aliases=site.series_aliases,
        )
        trained = trained_on(home.trained, model.name.fingerprint, model.seed)
        key = simulated_key(model.seed) if model.simulated else site_key(home.identity_key)
        # Large cohorts and volumes are read from the cache as they are needed.
        return fit(cohort, model, wishes, trained, key)


def fit(
    cohort: SiteCohort,
    model: TrainedModel,
    wishes: CalibrationOptions,
    trained: frozenset[str] = frozenset(),
    key: SplitKey | None = None,
) -> SiteCalibration:
    """Fit the model's calibration on a cohort's patients; see `calibrate`.

    `trained` are those, by hash, whom the model was trained on whatever the split says now. The
    key is that of the run's split here; None stands for a simulation's, of the model's seed.
    """
    config = model.config
    split = cohort.split(config.cohort.split, key or simulated_key(model.seed))
    parts = parts_of(config)
    held = [found for part in parts if len(found := _without(split[part], trained))]
    patients = sum(len(found) for found in held)
    if patients < FEWEST_PATIENTS:
        message = (
            f"Only {patients} of this site's {len(cohort.items)} patients are in the run's "
            f"{' and '.join(parts)} part (the run's split counts where the site took no part, "
            f"too), expected at least {FEWEST_PATIENTS}. With fewer, a calibration "
            "would promise what it cannot hold; the model's own values are shown."
        )
        raise CohortError(message)
    reference = embedded(*_reference(split["train"]), config)
    away = np.concatenate([_distances(found, reference, config) for found in held])
    line, draws = np.zeros(0), np.zeros((0, 0))
    thresholds: tuple[tuple[float, ...], ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()
    if not config.task.outlines:
        batches = [take(found, _items_that_count(found, config)) for found in held]
        output = torch.cat([_outputs(model, batch) for batch in batches])
        target = torch.cat([_first_of_each(batch) for batch in batches])
        if isinstance(config.task.predicts, BoundedNumber):
            predicted = task_of(config.task).predict(output.double())
            misfit = (predicted - target.double()).abs()[:, 0].numpy()
            thresholds, counts = ((threshold(misfit, wishes.coverage),),), ((len(misfit),),)
        else:
            line, draws = fit_lines(output, target, config, model.seed)
            thresholds, counts = _thresholds(output, target, config, wishes.coverage)
    return SiteCalibration(
        weights=model.name.weights,
        parts=parts,
        patients=patients,
        coverage=wishes.coverage,
        flagged=wishes.flagged,
        line=line,
        draws=draws,
        thresholds=thresholds,
        counts=counts,
        distances=away,
        reference=reference,
        members=hashed(name for part in split.values() for name in part.pseudonyms),
    )


def _without(patients: Patients, trained: frozenset[str]) -> Patients:
    """Return those whom the model was not trained on."""
    names = patients.pseudonyms
    return patients_at(
        patients, [i for i, name in enumerate(names) if not hashed([name]) & trained]
    )


def parts_of(config: RunConfig) -> tuple[Part, ...]:
    """Return whose patients had no say in the model's weights."""
    return ("test", "validation") if config.selection.rule == "last" else ("test",)


def _reference(train: Patients) -> tuple[Items, Tensor]:
    """Return images and table rows of the training part, not more than are needed."""
    every = max(1, -(-len(train.patient) // _MOST_REFERENCE))
    chosen = torch.arange(0, len(train.patient), every)
    return taken(train.image, chosen), train.table[chosen]


def _items_that_count(patients: Patients, config: RunConfig) -> Tensor:
    """Return these items: all where a patient's are scored together, else each one's first."""
    if config.evaluation.unit == "patient" and not config.task.outlines:
        return torch.arange(len(patients.patient))
    return torch.searchsorted(patients.patient, torch.arange(len(patients)))


def _outputs(model: TrainedModel, batch: Batch) -> Tensor:
    """Return the mean output of each patient's items, or that of their bag, (patients, labels)."""
    each = Isolation(model.deployed)
    items = torch.arange(len(batch.patient))
    if pools(model.deployed):
        bags = torch.split(items, torch.bincount(batch.patient).tolist())
        with torch.inference_mode():
            return torch.cat(
                [each.alone(functools.partial(_outputs_of, model, batch, b)) for b in bags]
            )
    with torch.inference_mode():
        found = [
            each.alone(functools.partial(_outputs_of, model, batch, chosen))
            for chosen in torch.split(items, 1 if each.needed else _CHUNK)
        ]
    return patient_mean(torch.cat(found), batch)


def _outputs_of(model: TrainedModel, batch: Batch, chosen: Tensor) -> Tensor:
    if model.config.keeps_features:
        return model.deployed.of_features(batch.image[chosen], batch.table[chosen]).clone()
    inputs = {"image": batch.image[chosen], "table": batch.table[chosen]}
    given = {name: value for name, value in inputs.items() if value[0].numel()}
    # A copy: code of others may answer with memory that it uses again.
    output: Tensor = model.deployed(**given)[1].clone()
    return output


def _first_of_each(batch: Batch) -> Tensor:
    """Return each patient's target; its items share it where they are scored together."""
    patients = int(batch.patient.max()) + 1
    return batch.target[torch.searchsorted(batch.patient, torch.arange(patients))]


def _distances(patients: Patients, reference: Tensor, config: RunConfig) -> np.ndarray:
    """Return each patient's least usual item's distance, (patients,)."""
    chosen = _items_that_count(patients, config)
    seen = embedded(taken(patients.image, chosen), patients.table[chosen], config)
    found = np.zeros(len(patients))
    np.maximum.at(found, patients.patient[chosen].numpy(), distances(reference, seen).numpy())
    return found


def _thresholds(
    output: Tensor, target: Tensor, config: RunConfig, coverage: float
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return the largest misfit of each question's classes, and how many patients it is from."""
    raw = task_of(config.task).predict(output.double()).numpy()
    thresholds: list[tuple[float, ...]] = []
    counts: list[tuple[int, ...]] = []
    truths = true_classes(config, target.double().numpy())
    for probability, truth in zip(class_probabilities(config, raw), truths, strict=True):
        misfits = [1 - probability[truth == c, c] for c in range(probability.shape[1])]
        thresholds.append(tuple(threshold(misfit, coverage) for misfit in misfits))
        counts.append(tuple(len(misfit) for misfit in misfits))
    return tuple(thresholds), tuple(counts)
