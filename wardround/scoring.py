"""A trained model on other patients: measured on a hospital, asked about a study."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from client.dicom.reasons import Unusable
from client.inference.inputs import study_files
from client.inference.local import labels_for
from client.inference.trained_model import Local, TrainedModel, score_study
from client.results.score import Score
from common.metrics.intervals import Estimate
from common.platform.errors import CohortError, ConfigurationError
from common.tasks import task_of
from common.tasks.task import Scores
from simulations.comparison.model_measured import check_part, measured, opened, scored
from wardround.showing import as_html, as_text, frame, number, table_of_rows
from wardround.sites import Cohorts, check_read_for, cohorts

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_RESEARCH = "For research, not for clinical use."


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluated:
    """A model measured on patients of hospitals."""

    model: TrainedModel
    part: Literal["test", "all"]
    scores: Mapping[str, Scores]  # by site: prediction, target, loss of each patient or image
    #: By site; and "all", over all patients together, of several sites unless the run's headline
    #: is the mean of the sites' own (evaluation.average: sites).
    metrics: Mapping[str, Mapping[str, Estimate]]

    @property
    def metric(self) -> str:
        """Name of the headline metric."""
        return task_of(self.model.config.task).metric

    def frame(self) -> pd.DataFrame:
        """Return every metric: site, metric, value, low, high (95 %, by patient), patients, reason.

        value is NaN where it cannot be had, and reason then says why.
        """
        rows = [
            {
                "site": site,
                "metric": name,
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "patients": estimate.patients,
                "reason": estimate.reason,
            }
            for site, metrics in self.metrics.items()
            for name, estimate in metrics.items()
        ]
        columns = ("site", "metric", "value", "low", "high", "patients", "reason")
        return frame(columns, rows)

    def _table(self) -> Table:
        rows = []
        for site, metrics in self.metrics.items():
            found = metrics[self.metric]
            between = f"{number(found.low)} to {number(found.high)}"
            rows.append((site, number(found.value), between, str(found.patients)))
        whom = "patients of the run's test part" if self.part == "test" else "all patients"
        title = f"{self.model.name.name}: {self.metric}, {whom}"
        return table_of_rows(title, ("", self.metric, "95 % interval", "patients"), rows)

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """What a model says of one study. For research, not for clinical use."""

    scores: tuple[Score, ...]  # one an image (2-D) or series, or one for the patient's study
    not_used: tuple[Unusable, ...]  # files, series and rows that were left out, and why

    def frame(self) -> pd.DataFrame:
        """Return a row for each number that the model gives.

        Columns: score (position in `scores`), label, meaning, value (as the network gives it; no
        local calibration is applied), files (that were scored). Of outlines: label is the
        structure, value its pixels on the grid of the files as they were sent.
        """
        return frame(("score", "label", "meaning", "value", "files"), self._rows())

    def _rows(self) -> list[dict[str, object]]:
        return [
            {
                "score": place,
                "label": label,
                "meaning": meaning,
                "value": value,
                "files": len(found.sources),
            }
            for place, found in enumerate(self.scores)
            for label, meaning, value, _ in _values(found)
        ]

    def _table(self) -> Table:
        rows = [
            (meaning, words, str(len(found.sources)))
            for found in self.scores
            for _, meaning, _, words in _values(found)
        ]
        title = f"{self.scores[0].model.name}. {_RESEARCH}"
        found = table_of_rows(title, ("", "value", "files"), rows)
        kinds = sorted({problem.reason.name for problem in self.not_used})
        found.caption = f"not used: {len(self.not_used)} ({', '.join(kinds)})" if kinds else None
        return found

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())


def _values(found: Score) -> list[tuple[str, str, float | int, str]]:
    """Return label, meaning, value and its words of a score's numbers, or of outlines' sizes."""
    if found.outlines is None:
        return [(q.label, q.meaning, q.value, q.words) for q in found.quantities]
    outlined = found.outlines
    sizes = [
        int((outlined.labels == number).sum()) for number in range(1, 1 + len(outlined.structures))
    ]
    return [
        (name, f"pixels of {name}", size, str(size))
        for name, size in zip(outlined.structures, sizes, strict=True)
    ]


def open_bundle(folder: str | PathLike[str]) -> TrainedModel:
    """Open a bundle once, to evaluate or predict with it several times.

    folder: as `Trained.bundle`, `Results.report` (its bundle/) or `wardround-coordinator export`
        wrote it. `config` of what is returned is the run that made it.

    Raises ConfigurationError where there is no bundle or another release made it, and StateDamaged
    where a file is missing, was changed, or does not compute what the bundle's ONNX file does.
    """
    return opened(Path(folder))


def evaluate(
    bundle: str | PathLike[str] | TrainedModel,
    cohort: Cohorts | str | PathLike[str],
    *,
    part: Literal["test", "all"] = "test",
    progress: bool = True,
) -> Evaluated:
    """Measure a model on hospitals' patients: on its run's test part, as the comparison did.

    bundle: its folder, or what `open_bundle` returned.
    cohort: hospitals of `cohorts`, or a folder as `cohorts` takes it.
    part: "test" scores the patients whom the run's split keeps for testing, which no training
        of a simulated run has seen. "all" is for a hospital that took no part in the run; of one
        that did, it would count patients whom the model was trained on.

    Scores are by patient or by image, as evaluation.unit says; intervals are bootstrapped by
    patient.

    Raises CohortError where a hospital cannot be read or nobody is left to score, and
    ConfigurationError where the bundle is none, the hospitals were read for another kind of run,
    or "test" is asked of a run between hospitals, whose splits only the hospitals know.
    """
    model = bundle if isinstance(bundle, TrainedModel) else open_bundle(bundle)
    check_part(model, part)
    if not isinstance(cohort, Cohorts):
        cohort = cohorts(model.config, cohort, progress=progress)
    # An exported model says of its run what it was trained under, which is without privacy often.
    check_read_for(cohort, model.config, with_privacy=False)
    scores = scored(model, cohort.hospitals.cohorts, part)
    return Evaluated(model=model, part=part, scores=scores, metrics=measured(model, scores))


def predict(
    study: str | PathLike[str] | Sequence[str | PathLike[str]],
    bundle: str | PathLike[str] | TrainedModel,
    *,
    labels: str | PathLike[str] | None = None,
    explain: bool = True,
) -> Prediction:
    """Return what a model says of one study of one patient. For research, not for clinical use.

    study: the study's folder, one DICOM file, or a list of files.
    bundle: its folder, or what `open_bundle` returned.
    labels: the table with the clinical columns (CSV, XLSX or Parquet), for models that take some.
    explain: whether to make heatmaps and attributions, which take most of the time.

    `scores` hold the numbers; label maps (files, rows, columns) uint8 on the grid of the files as
    they were sent; heatmaps (rows, columns) float32, 0 to 1. No calibration of a hospital is
    applied, and nobody's withdrawal is known here: at a hospital use `wardround-site predict`.

    Raises CohortError where there is no such file or folder, nothing in it is for this model, or
    it is several studies; ConfigurationError where the bundle is none or clinical columns lack.
    """
    files = _files(study)
    model = bundle if isinstance(bundle, TrainedModel) else open_bundle(bundle)
    if model.config.cohort.table is not None and labels is None:
        message = (
            f"{model.name.name} takes clinical columns. Give the table that has them: "
            'labels="labels.csv".'
        )
        raise ConfigurationError(message)
    table = None if labels is None else labels_for(Path(labels), model.config)
    problems: list[Unusable] = []
    local = Local(labels=table, explain=explain)
    with warnings.catch_warnings():
        # Of a library of a library, which would like to draw its bars; none is drawn here.
        warnings.filterwarnings("ignore", message="IProgress not found")
        scores = score_study(files, model, local, problems.append)
    return Prediction(scores=scores, not_used=tuple(problems))


def _files(study: str | PathLike[str] | Sequence[str | PathLike[str]]) -> tuple[Path, ...]:
    if not isinstance(study, str | PathLike):
        return tuple(Path(each) for each in study)
    found = study_files(Path(study))
    if found is None:
        message = f"There is no file or folder {study}. Give a study's folder or its files."
        raise CohortError(message)
    return found
