"""Selection of the images of a run: those that it asks for and whose row means them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.cohort.image_masks import MaskRules
from client.cohort.left_out import LeftOut
from client.cohort.series_choice import Choice, check_fits, choose
from client.dicom.contained import contained
from client.dicom.index.index import Index
from client.dicom.reading.read import Header
from client.dicom.reasons import Reason, UnusableFile
from client.labels.label_table import Labels, dicom_keys
from common.config.run_config import Images


@dataclass(frozen=True, kw_only=True)
class WantedImages:
    """Which of a site's images a run takes, and how it takes them."""

    rules: Images  # the run's: modality, size, dimensions
    labels: Labels  # the table's rows, each of which may name images
    left_out: LeftOut  # whom and what the site lets into no cohort
    masks: MaskRules | None  # where a run learns outlines


class ImageGate:
    """Lets those images through that a run wants and that their row means."""

    def __init__(self, wanted: WantedImages) -> None:
        self._rules, self._masks = wanted.rules, wanted.masks
        self._labels, self._left_out = wanted.labels, wanted.left_out
        self._choice = Choice(refused={})

    def look(self, site: Path, index: Index) -> None:
        """Compare the images that stand beside each other, by their headers."""
        index.update(site)
        fits = (image for image in index.instances(site) if self._is_wanted(image.header))
        mask = None if self._masks is None else self._masks.column
        self._choice = choose(fits, index.quarantined(site), self._rules, self._labels, mask)

    def check(self, header: Header) -> None:
        """Raise UnusableFile for an image that is left out."""
        self._check_by_itself(header)
        self._choice.check(header)

    def _check_by_itself(self, header: Header) -> None:
        rules = self._rules
        check_fits(header, rules)
        if not header.patient:
            raise UnusableFile(Reason.MISSING_HEADER, "PatientID")
        self._left_out.check(header.patient, header.instance)
        self._labels.find(dicom_keys(header))

    def _is_wanted(self, header: Header) -> bool:
        try:
            with contained():
                self._check_by_itself(header)
        except UnusableFile:
            return False
        return True
