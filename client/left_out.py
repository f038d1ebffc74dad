"""Whom and what a site lets into no cohort, whatever a run asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from client.dicom.reasons import Reason, Unusable, UnusableFile
from common.errors import CohortError


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


class NobodyUsable(CohortError):
    """Everything is there, and nobody of it can be used; `unusable` says why of each."""

    def __init__(self, message: str, unusable: Sequence[Unusable]) -> None:
        super().__init__(message)
        self.unusable = tuple(unusable)
