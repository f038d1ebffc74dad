"""A site's quality rules applied to its own images: what is refused and what is only reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cohort.decode import read_objects
from client.cohort.image_quality import ImageRequirements, QualityVerdict, Suspect, judge
from client.cohort.pixel_quality import PixelSuspects, look_at_pixels
from client.cohort.scan import dicom_files
from client.cohort.select import Grouping
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.pixels.burned_in_text import ReadText, text_reader
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason, UnusableFile
from client.labels.label_table import Labels, dicom_keys, read_labels
from client.site.cache import PIXELS
from client.site.quality_section import Action, QualityRules
from common.config.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class CohortPaths:
    """Where a site's images, their index and their decoded pixels lie."""

    data: Path
    labels: Path
    index: Path
    cache: Path


def images_left_out(
    paths: CohortPaths, config: RunConfig, rules: QualityRules
) -> dict[tuple[str, str], tuple[Reason, str]]:
    """Return the images that a run must not take, by patient and UID, with reason and detail.

    In a run with privacy, rules that compare patients only warn: no patient's images may take
    another's out. The index is brought up to date first. Pixels are looked at only where the site
    leaves images out for them; then whatever is not decoded yet is decoded.
    """
    if not config.cohort.in_dicom:  # every rule asks headers, which files have none of
        return {}
    if config.privacy != "none":
        rules = rules.by_patient()
    with Index(paths.index) as index:
        index.update(paths.data)
        rows = tuple(index.instances(paths.data))
    pixels = None
    if "leave_out" in {rules.same_pixels, rules.saturated}:
        with PixelStore(paths.cache / PIXELS) as store:
            files = dicom_files(paths.data, frozenset())
            read_objects(paths.data, files, lambda _header: None, store, Grouping(by_series=False))
            pixels = look_at_pixels(rows, store)
    found = judged(rows, config, rules, paths.labels, pixels)
    return {key: (s.reason, s.detail) for key, s in found.refused().items() if all(key)}


def judged(
    rows: Sequence[Instance],
    config: RunConfig | None,
    rules: QualityRules,
    labels: Path,
    pixels: PixelSuspects | None,
) -> QualityVerdict:
    """Apply the site's rules, and those of a run where one is given."""
    more: dict[Action, list[Suspect]] = {"leave_out": [], "warn": []}
    if pixels is not None:
        for action, found in (
            (rules.saturated, pixels.saturated),
            (rules.same_pixels, pixels.same_pixels),
            (rules.burned_in_text, pixels.text),
        ):
            if action != "off":
                more[action] += found
    return judge(rows, rules, wanted_of(config, labels), more)


def reader_of(rules: QualityRules) -> ReadText | None:
    """Return what reads text in pictures, where the site asked for it and it is installed."""
    return text_reader() if rules.read_text and rules.burned_in_text != "off" else None


def wanted_of(config: RunConfig | None, table: Path) -> ImageRequirements:
    """Return what a run asks of its images; CohortError for a table without the named side."""
    images = config.cohort.images if config is not None else None
    if images is None:
        return ImageRequirements()
    side = images.laterality_column
    if side is None:
        return ImageRequirements(body_parts=images.body_parts, laterality=images.laterality)
    private = config is not None and config.privacy != "none"
    labels = read_labels(table, (side,), with_images=True, by_patient=private)
    return ImageRequirements(
        body_parts=images.body_parts,
        laterality=images.laterality,
        side_in_table=lambda row: _side(row, labels, side),
    )


def _side(row: Instance, labels: Labels, column: str) -> str:
    try:
        return labels.rows[labels.find(dicom_keys(row.header))][column]
    except UnusableFile:  # no row, or rows that disagree: said where labels are joined
        return ""
