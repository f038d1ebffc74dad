"""Whom and what a site lets into no cohort, whatever a run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from client.dicom.reasons import Reason, UnusableFile


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Withdrawn patients, and images that the site's rules of quality refuse."""

    withdrawn: frozenset[str] = frozenset()  # PatientIDs
    #: By SOP Instance UID: why, and what exactly, for the site's admin.
    images: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)

    def check(self, instance: str) -> None:
        """Raise UnusableFile for an image that is left out."""
        refused = self.images.get(instance)
        if refused is not None:
            raise UnusableFile(*refused)
