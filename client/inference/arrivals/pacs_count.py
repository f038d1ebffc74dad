"""Completeness of a study that arrives: decided by the PACS's count, never by silence alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from client.pacs.image_source import ImageSource, PacsQuery, RemoteSeries, open_source
from client.site.pacs_section import PacsConfig

#: Series that hold no image a model reads (PS3.3 C.7.3.1.1.1); they need not arrive.
_NO_IMAGES = frozenset(
    {"SR", "SEG", "PR", "KO", "DOC", "REG", "FID", "RWV", "PLAN", "RTSTRUCT", "RTPLAN", "RTRECORD"}
)


def can_be_asked(pacs: PacsConfig | None) -> bool:
    """Return whether the site's PACS tells how many images a study has."""
    return pacs is not None and pacs.route != "folder"


def missing(
    pacs: PacsConfig,
    arrived: Mapping[str, int],
    own: frozenset[str],
    study: str,
    modalities: tuple[str, ...],
) -> str:
    """Return what of a study has not come, by NumberOfSeriesRelatedInstances; empty: all came.

    Of series that hold no image, or that results of ours are in (`own`), nothing is expected, nor
    of other modalities than the model's, where it names some. A series of which one image came
    must be whole. Raises what the PACS's route raises when it cannot be asked.
    """
    question = PacsQuery(
        key="StudyInstanceUID", value=study, modality="", first_day="", last_day=""
    )
    # Nothing is fetched, so no folder is needed to put it in.
    with open_source(pacs, Path("/nonexistent")) as source:
        listed = {one.series: one for one in source.find(question) if one.study == study}
        if not listed:
            return "the PACS does not list the study yet"
        wanted = [
            one
            for one in listed.values()
            if one.series in arrived or _is_expected(one, own, modalities)
        ]
        counts = [
            (arrived.get(one.series, 0), _stated(source, one))
            for one in wanted
            if one.series not in own
        ]
    unlisted = len(arrived.keys() - listed.keys())
    if unlisted:
        return f"{unlisted} series that came are not listed by the PACS yet"
    if any(came != stated for came, stated in counts):
        came, stated = (sum(column) for column in zip(*counts, strict=True))
        return f"{came} images came, the PACS has {stated}, in {len(counts)} series"
    return ""


def _is_expected(one: RemoteSeries, own: frozenset[str], modalities: tuple[str, ...]) -> bool:
    if one.series in own or one.modality in _NO_IMAGES:
        return False
    return not modalities or one.modality in modalities


def _stated(source: ImageSource, one: RemoteSeries) -> int:
    """Return the PACS's count of a series: as it says, or of its list where it does not say."""
    return one.instances if one.instances is not None else len(source.instances(one))
