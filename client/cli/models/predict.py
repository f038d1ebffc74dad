"""`predict`: a model's answer to one study, written, sent, and in plain words."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.dicom.reasons import Reason, Unusable
from client.inference.inputs import check_bundle, study_files
from client.radiomics.feature import Feature
from client.radiomics.measured import MeasuredStructure
from client.results.score import RATIO, Score
from client.site.home import Home
from client.site.pacs_section import PacsConfig
from client.site.results_section import ResultReceivers
from client.site.site_config import allowed_extensions, load_site_config
from client.site.terminal import as_text, say
from common.config.parts.units import after_number
from common.metrics.shown_probability import shown_probability, shown_share
from common.platform.errors import CohortError, ConfigurationError, ExitCode

if TYPE_CHECKING:
    from client.inference.trained_model import TrainedModel
    from client.pacs.sending.delivery import Delivered
    from client.results.writing import Result

#: Attributions that are shown at most, and the smallest that is.
_SHOWN, _NOTICED = 8, 0.005


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What was asked for on the command line."""

    study: str  # a StudyInstanceUID, a folder or a file
    bundle: Path
    out: Path | None  # None: the home's own folder of results
    send: bool
    abstain: bool  # False: an answer is given where the calibration advises against it


def predict(home: Home, wanted: PredictOptions, *, as_json: bool) -> ExitCode:
    """Score the study and write, send and show what the model says.

    RUN_FAILED when a result did not arrive in the PACS.
    """
    pacs, receivers = receivers_of(home) if wanted.send else (None, ResultReceivers())
    files = files_of(home, wanted.study)
    # Imported here: torch takes its time, and a wrong path should not wait for it.
    from client.inference.local import local_of
    from client.inference.trained_model import open_model, score_study
    from client.pacs.receivers.deliver_everywhere import deliver_everywhere
    from client.results.writing import write_results

    check_bundle(wanted.bundle)
    model = open_model(wanted.bundle, allowed_extensions(home.site_yaml))
    local = local_of(home, model, abstain=wanted.abstain)
    unusable: list[Unusable] = []
    scores = score_study(files, model, local, unusable.append)
    learned = _was_learned_from(home, model, scores[0])
    folder = wanted.out or home.results / _digest(scores[0])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    results = [result for score in scores for result in write_results(score, folder)]
    delivered, fault = deliver_everywhere(results, pacs, receivers)
    if as_json:
        say(
            json.dumps(
                {
                    "research": "for research, not for clinical use",
                    "scores": [_as_json(score) for score in scores],
                    "patient_was_trained_on_here": learned,
                    "not_used": [[u.reason.name, u.what, u.detail] for u in unusable],
                    "written": [str(result.path) for result in results],
                    "sent": [[d.name, d.state.name, d.detail] for d in delivered],
                },
                indent=1,
            )
        )
    else:
        _show(scores, unusable)
        if learned:
            say("THIS PATIENT WAS TRAINED ON HERE: the answer does not show how good the model is.")
        _say_results(folder, results, delivered)
        if not wanted.send:
            say("Nothing was sent; --send brings them into the PACS.")
    if fault is not None:
        raise fault
    arrived = all(one.arrived for one in delivered)
    return ExitCode.DONE if arrived else ExitCode.RUN_FAILED


def _say_results(folder: Path, results: Sequence[Result], sent: Sequence[Delivered]) -> None:
    say(f"Written to {folder}: {', '.join(result.path.name for result in results)}")
    for one in sent:
        detail = f" {as_text(one.detail)}" if one.detail else ""
        say(f"  {as_text(one.name)}: {one.state.value}.{detail}")


def _was_learned_from(home: Home, model: TrainedModel, score: Score) -> bool:
    """Return whether this site's training of the model's run saw the study's patient."""
    from pydicom import dcmread

    from client.inference.calibration.site_calibration import hashed
    from client.inference.calibration.trained_on import trained_on

    header = dcmread(score.sources[0], stop_before_pixels=True, specific_tags=["PatientID"])
    patient = str(header.get("PatientID", "")).strip()
    return bool(hashed([patient]) & trained_on(home.trained, model.name.fingerprint, model.seed))


def files_of(home: Home, study: str) -> tuple[Path, ...]:
    """Return a study's files: of a folder or file that is there, else of the index.

    CohortError when it is neither.
    """
    given = study_files(Path(study))
    if given is not None:
        return given
    if not study or set(study) - set("0123456789."):
        message = (
            f"There is no file or folder {study}, and it is no StudyInstanceUID (digits and dots)."
            " Give one of these."
        )
        raise CohortError(message)
    return _indexed(home, study)


def _indexed(home: Home, study: str) -> tuple[Path, ...]:
    from client.dicom.index.index import Index

    files: tuple[Path, ...] = ()
    if home.index.exists():
        with Index(home.index) as index:
            files = index.find_study(study)
    if not files:
        message = (
            f"The study {study} is not in the index {home.index}. Pull it "
            "(`wardround-site pull`) or put its files into the data folder, then type: "
            "wardround-site index"
        )
        raise CohortError(message)
    gone = [path for path in files if not path.is_file()]
    if gone:
        message = (
            f"{len(gone)} of the study's {len(files)} files are no longer there, {gone[0]} among "
            "them. Type: wardround-site index"
        )
        raise CohortError(message)
    return files


def receivers_of(home: Home) -> tuple[PacsConfig | None, ResultReceivers]:
    """Return the PACS and who else is told of results; ConfigurationError where nobody is."""
    site = load_site_config(home.site_yaml)
    if site.pacs is None and not site.results.any:
        message = (
            f"{home.site_yaml} names no PACS that results could be sent to, and nobody else. Fill "
            "in its section pacs or results, or leave --send out."
        )
        raise ConfigurationError(message)
    return site.pacs, site.results


def _digest(score: Score) -> str:
    """Return a name for the study's folder that is no identifier."""
    from pydicom import dcmread

    header = dcmread(score.sources[0], stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
    study = str(header.get("StudyInstanceUID", ""))
    return hashlib.sha256(study.encode()).hexdigest()[:16]


# --- in words ------------------------------------------------------------------------------


def _show(scores: Sequence[Score], unusable: Sequence[Unusable]) -> None:
    for number, score in enumerate(scores, 1):
        of = f" ({number} of {len(scores)})" if len(scores) > 1 else ""
        read = len(score.sources) + len(score.beside)
        files = f"{read} file{'s' * (read != 1)}"
        say(f"{score.model.name}{of}, from {files}. For research, not for clinical use.")
        for line in lines_of(score):
            say(f"  {as_text(line)}")
    counts = Counter(problem.reason for problem in unusable)
    for reason, count in counts.most_common():
        first = next(u for u in unusable if u.reason is reason)
        detail = f": {first.detail}" if first.detail else ""
        say(f"Not used: {count} x {reason.name}, {as_text(first.what)}{as_text(detail)}")
        say(f"  {reason.value if reason is not Reason.DERIVED else 'It needs no score.'}")


def lines_of(score: Score) -> Iterator[str]:
    """Yield what a radiologist reads of a score."""
    for quantity in score.quantities:
        if quantity.unit != RATIO:
            yield f"{quantity.meaning}: {quantity.words}"
            continue
        value = f"{quantity.meaning}: {shown_probability(quantity.value, 2)}"
        if quantity.low is not None and quantity.high is not None:
            low, high, raw = (
                shown_probability(one, 2) for one in (quantity.low, quantity.high, quantity.raw)
            )
            value += f" ({low} to {high}); before calibration {raw}"
        yield value
    if score.outlines is not None:
        for number, name in enumerate(score.outlines.structures, 1):
            within = score.outlines.labels == number
            images = f"{int(within.any(axis=(1, 2)).sum())} of {len(within)} images"
            sizes = [_size(one) for one in score.outlines.measured if one.name == name]
            size = sizes[0] if sizes else "its size: the report"
            yield f"{name}: {int(within.sum())} pixels outlined, on {images}; {size}"
    yield from _caution(score)
    moved = [one for one in score.attributions if abs(one.value) >= _NOTICED]
    for one in sorted(moved, key=lambda a: -abs(a.value))[:_SHOWN]:
        yield f"{one.column} moved it by {one.value:+.2f} against a usual value (network's scale)"
    if score.heatmap is not None:
        yield f"heatmap for {score.heatmap.label} by {score.heatmap.method}"


def _size(one: MeasuredStructure) -> str:
    """Return what of a structure's measurements a radiologist reads first."""
    said = [f"{one.volume / 1000:.2f} mL"]
    if Feature.DIAMETER in one.features:
        said.append(f"{one.features[Feature.DIAMETER]:.1f} mm across")
    if Feature.MEAN in one.features:
        unit = after_number(one.unit)
        said.append(f"mean {one.features[Feature.MEAN]:.4g}{unit}")
    return ", ".join(said)


def _caution(score: Score) -> Iterator[str]:
    """Yield how far the answer may be trusted."""
    if score.prediction_set is not None and score.coverage is not None:
        members = ", ".join(score.prediction_set) or "none"
        yield f"possible here at {score.coverage:.0%}: {members}"
    if score.abstained is not None:
        yield f"NO ANSWER: {score.abstained}"
    if score.unlike_training is not None:
        yield (
            f"{shown_share(score.unlike_training)} of this site's own images are at least as "
            "unlike the training images"
        )
    else:
        yield "not calibrated at this site; type: wardround-site calibrate --bundle FOLDER"


def _as_json(score: Score) -> dict[str, object]:
    outlined = score.outlines
    return {
        "model": vars(score.model),
        "kind": score.kind,
        "sources": [str(path) for path in (*score.sources, *score.beside)],
        "quantities": [
            {**vars(one), "code": None if one.code is None else one.code.model_dump()}
            for one in score.quantities
        ],
        "prediction_set": score.prediction_set,
        "coverage": score.coverage,
        "abstained": score.abstained,
        "unlike_training": score.unlike_training,
        "outlined_pixels": None
        if outlined is None
        else {
            name: int((outlined.labels == number).sum())
            for number, name in enumerate(outlined.structures, 1)
        },
        "measured": None
        if outlined is None
        else {
            one.name: {feature.column: value for feature, value in one.features.items()}
            for one in outlined.measured
        },
        "heatmap": None
        if score.heatmap is None
        else {
            "method": score.heatmap.method,
            "label": score.heatmap.label,
            "source": str(score.sources[score.heatmap.source]),
            "frame": score.heatmap.frame,
        },
        "attributions": {one.column: one.value for one in score.attributions},
    }
