"""Measurement of what a model outlines in the studies of a site's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.reasons import Reason, UnusableFile
from client.inference.calibration.site_calibration import hashed
from client.inference.trained_model import Local, TrainedModel, score_study
from client.labels.label_table import Labels, Row, dicom_keys, key_of_row, read_labels
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import MeasuredRow, SiteMeasurements
from client.radiomics.measured import MeasuredMask
from client.results.score import Score
from common.config.tasks.forms import LabelMap
from common.platform.errors import CohortError, ConfigurationError

#: Takes each score, to write it as results.
Keep = Callable[[Score], None]
_DETAIL = 200  # characters of a message in a list


def _nobody(_score: Score) -> None:
    return


def plan_of(model: TrainedModel) -> MeasurePlan:
    """Return what is measured of a model's outlines; ConfigurationError where it draws none."""
    form, images = model.config.task.predicts, model.config.cohort.images
    if not isinstance(form, LabelMap) or images is None or images.dimensions != 3:
        message = (
            f"{model.name.name} outlines no volumes, so there is nothing to measure. Give the "
            "bundle of a segmentation in 3-D, or a MEASURE.yaml for masks that the table names."
        )
        raise ConfigurationError(message)
    return MeasurePlan(structures=dict(form.structures), codes=dict(form.codes))


def measure_predicted(
    site: Path,
    model: TrainedModel,
    local: Local,
    index_file: Path,
    labels_csv: Path | None = None,
    *,
    learned: frozenset[str] = frozenset(),
    keep: Keep = _nobody,
) -> SiteMeasurements:
    """Let a model outline the study of every row of a site's table, and measure that.

    learned: SHA-256 of the PatientIDs that the model was trained on here, of whom that is said.
    Each score goes to `keep`, too. CohortError when folder or table is missing; a study that
    cannot be scored is listed with its reason, and stops no other.
    """
    if not site.is_dir():
        message = f"There is no folder {site}. Each site is a folder with a labels.csv."
        raise CohortError(message)
    table = labels_csv or site / "labels.csv"
    labels = read_labels(table, (), with_images=True, withdrawn=local.withdrawn)
    problems, rows = list(labels.unusable), []
    with Index(index_file) as index:
        index.update(site)
        images = _by_row(index, site, labels)
        for row in sorted(labels.index.values()):
            patient = labels.rows[row].get("PatientID", "")
            what = f"patient {patient}" if patient else f"line {labels.lines[row]}"
            try:
                files = _files(images[row], labels.rows[row], index)
                found = _outlined(files, model, local, keep)
            except UnusableFile as problem:
                problems.append(problem.listed(what, patient))
                continue
            rows.append(MeasuredRow(row=row, patient=patient, masks=(found,), fractions={}))
            notices = [notice for one in found.structures for notice in one.notices]
            if hashed([images[row][0].patient]) & learned:
                notices.append(UnusableFile(Reason.TRAINED_ON))
            problems += [notice.listed(what, patient) for notice in notices]
    return SiteMeasurements(
        name=site.name, labels=labels, rows=tuple(rows), unusable=tuple(dict.fromkeys(problems))
    )


def _by_row(index: Index, site: Path, labels: Labels) -> dict[int, list[Instance]]:
    found: dict[int, list[Instance]] = defaultdict(list)
    for image in index.instances(site):
        with suppress(UnusableFile):  # of no row
            found[labels.find(dicom_keys(image.header))].append(image)
    return found


def _files(images: Sequence[Instance], row: Row, index: Index) -> tuple[Path, ...]:
    """Return the files of a row's study, or of the series that it names."""
    studies = {image.study for image in images}
    if len(studies) != 1:
        detail = f"the row has images of {len(studies)} studies" if studies else ""
        raise UnusableFile(Reason.AMBIGUOUS_SERIES if studies else Reason.NO_IMAGE, detail)
    key = key_of_row(row)
    if key is not None and key[0] == "SeriesInstanceUID":
        return tuple(image.path for image in images)
    return index.find_study(studies.pop())


def _outlined(files: Sequence[Path], model: TrainedModel, local: Local, keep: Keep) -> MeasuredMask:
    """Return what a model outlines in one study, whose one volume it has to be."""
    try:
        scores = score_study(files, model, local)
    except CohortError as error:
        raise UnusableFile(Reason.NOT_SCORED, str(error)[:_DETAIL]) from error
    for score in scores:
        keep(score)
    held = [(one.sources, one.outlines) for one in scores if one.outlines is not None]
    if len(held) != 1:
        raise UnusableFile(Reason.AMBIGUOUS_SERIES, f"the model outlined {len(held)} series")
    ((sources, outlines),) = held
    return MeasuredMask(name="", mask=None, sources=sources, structures=outlines.measured)
