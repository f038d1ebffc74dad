"""UIDs of results, derived from their content, so that a repeated result is no double."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum

import numpy as np

from client.results.score import RATIO, Quantity, Score
from client.results.source_images import SourceHeaders
from common.platform.code_hash import RELEASE


class Kind(Enum):
    """The forms of a result; the value names the file."""

    REPORT = "report"
    SEGMENTATION = "segmentation"
    CAPTURE = "capture"
    DIAGNOSTIC_REPORT = "diagnostic-report"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a score's results are called.

    A series is of a model and a source series; an instance is of all that the score says, of
    the sources it was said of, and of our release. The same score therefore gives the same
    UIDs wherever and whenever it is written, and a PACS that holds it keeps one copy; another
    calibration, model or release gives new instances in the model's own series.
    """

    score: str  # SHA-256 of all that the score says
    series: str  # SHA-256 of source series and model

    def series_uid(self, kind: Kind) -> str:
        """Return the SeriesInstanceUID of a kind of result."""
        return uid_of("series", self.series, kind.value)

    def instance_uid(self, kind: Kind, part: str = "") -> str:
        """Return the SOPInstanceUID of a result, or a UID for a part of it."""
        return uid_of("instance", self.score, kind.value, part)

    def file_name(self, kind: Kind) -> str:
        """Return a name under which scores of several series lie in one folder."""
        ending = "json" if kind is Kind.DIAGNOSTIC_REPORT else "dcm"
        return f"{kind.value}-{self.score[:12]}.{ending}"


def uid_of(*parts: str) -> str:
    """Return a UID that follows from the parts (PS3.5 B.2: 2.25 and a number of 128 bits)."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    # RFC 9562: version 8, made by an own rule, and the variant bits, so that it is a UUID too.
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | (8 << 76)
    number = number & ~(3 << 62) | (2 << 62)
    return f"2.25.{number}"


def identity_of(score: Score, source: SourceHeaders) -> Identity:
    """Return the identity of a score's results."""
    said = {
        "release": RELEASE,
        "model": [score.model.name, score.model.fingerprint, score.model.weights],
        "kind": score.kind,
        "patient": [source.read[0].patient, source.read[0].study],
        "instances": [str(header.SOPInstanceUID) for header in source.all_headers],
        "quantities": [
            [q.label, q.meaning, q.value, q.raw, q.low, q.high, *_unit(q)] for q in score.quantities
        ],
        "set": [score.prediction_set, score.coverage, score.abstained, score.unlike_training],
        "attributions": [[a.column, a.value] for a in score.attributions],
        "outlines": None
        if score.outlines is None
        else [list(score.outlines.structures), _hash(score.outlines.labels)],
        "heatmap": None
        if score.heatmap is None
        else [
            score.heatmap.source,
            score.heatmap.frame,
            score.heatmap.method,
            score.heatmap.label,
            _hash(score.heatmap.values),
        ],
    }
    return Identity(
        score=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        series=uid_of(*source.series, score.model.weights, score.model.fingerprint),
    )


def _unit(quantity: Quantity) -> list[object]:
    """Return what only numbers with a unit say, so that others keep their UIDs."""
    return [] if quantity.unit == RATIO else [quantity.unit, quantity.promise]


def _hash(values: np.typing.NDArray[np.generic]) -> str:
    found = hashlib.sha256(np.ascontiguousarray(values).tobytes())
    return f"{values.shape} {values.dtype.str} {found.hexdigest()}"
