"""Selection of what a pull asks for: the table's patients, modalities and days."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from client.labels.label_table import Row, read_labels
from client.pacs.image_source import Key, PacsQuery, RemoteSeries
from client.pacs.mask_links import mask_types
from client.site.pacs_section import PullSelection
from common.platform.errors import CohortError

#: A row's keys for a study, most specific first; each finds studies at every PACS.
_OF_STUDIES: tuple[Key, ...] = ("StudyInstanceUID", "AccessionNumber", "PatientID")


@dataclass(frozen=True, kw_only=True)
class WantedSeries:
    """A question, and what of its answer is taken."""

    question: PacsQuery
    series: frozenset[str]  # SeriesInstanceUIDs; empty for all that fit
    modalities: frozenset[str]  # empty for all
    masks: frozenset[str] = frozenset()  # modalities of masks, which come with a study's images

    def takes(self, found: RemoteSeries) -> bool:
        """Return whether a series is wanted: some PACS match more than they were asked for.

        So do all where an identifier holds * or ?, which are wildcards to them. Of what is known by
        a key of the table, a series whose modality the PACS does not tell may be wanted.
        """
        own: dict[Key, str] = {
            "PatientID": found.patient,
            "AccessionNumber": found.accession,
            "StudyInstanceUID": found.study,
            "SeriesInstanceUID": found.series,
        }
        key = self.question.key
        if key is not None and own[key] != self.question.value:
            return False
        return found.modality in self.masks or (
            (not self.series or found.series in self.series)
            and (
                not self.modalities
                or found.modality in self.modalities
                or (not found.modality and key is not None)
            )
        )

    def of_study(self, found: RemoteSeries) -> WantedSeries | None:
        """Return what asks for the masks of a study whose series was asked for by its own UID."""
        if self.question.key != "SeriesInstanceUID" or not self.masks:
            return None
        question = replace(self.question, key="StudyInstanceUID", value=found.study)
        return WantedSeries(
            question=question,
            series=frozenset({found.series}),
            modalities=self.modalities,
            masks=self.masks,
        )


def wanted(select: PullSelection, labels: Path) -> tuple[WantedSeries, ...]:
    """Return the questions of a selection; CohortError when it names nothing."""
    masks = mask_types(labels)
    if not select.named_by_labels:
        found = (_wanted(select, None, one) for one in select.modalities)
        return tuple(replace(one, masks=masks) for one in found)
    rows = read_labels(labels, [], with_images=True).rows
    asked: dict[tuple[Key, str], set[str]] = defaultdict(set)
    whole = set[tuple[Key, str]]()
    for row in rows:
        key, value, series = _of_row(row)
        if not value:
            continue
        asked[key, value] |= {series} - {""}
        if not series:
            whole.add((key, value))
    if not asked:
        message = (
            f"{labels} names no patient, study or series, so nothing is fetched. Fill PatientID, "
            "or set pacs.select.named_by_labels to false."
        )
        raise CohortError(message)
    found = (
        _wanted(select, key, value, frozenset() if (key, value) in whole else frozenset(series))
        for (key, value), series in asked.items()
    )
    return tuple(replace(one, masks=masks) for one in found)


def _of_row(row: Row) -> tuple[Key, str, str]:
    """Return the key and value to ask for, and the only series that is wanted of it, if any."""
    series = row.get("SeriesInstanceUID", "")
    for key in _OF_STUDIES:
        if row.get(key):
            return key, row[key], series
    return "SeriesInstanceUID", series, series


def _wanted(
    select: PullSelection, key: Key | None, value: str, series: frozenset[str] = frozenset()
) -> WantedSeries:
    first, last = (
        day.strftime("%Y%m%d") if day else "" for day in (select.first_day, select.last_day)
    )
    question = PacsQuery(
        key=key,
        value=value if key else "",
        modality="" if key else value,
        first_day=first,
        last_day=last,
    )
    return WantedSeries(question=question, series=series, modalities=frozenset(select.modalities))
