"""Contents of a site's folder: usable objects, and everything else listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.headers.checks import WITHOUT_PIXELS
from client.dicom.headers.instance import Quarantined
from client.dicom.reading.read import Header
from client.dicom.reasons import Reason, Unusable

#: A file that cannot be used and belongs to a series takes the series with it, if it is not
#: another kind of object.
_NO_SLICE = frozenset({Reason.SEGMENTATION, Reason.NO_PIXELS, Reason.DICOMDIR, Reason.SLIDE_LABEL})
#: A file of such a name was DICOM once, whatever stands in it now.
_NAMED_DICOM = frozenset({".dcm", ".dicom", ".ima"})
#: A patient, or nobody where all are looked at together, and a UID.
Owned = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Object:
    """A usable object of the folder; its pixels are in the store."""

    path: str  # below the site's folder
    key: str  # in the store
    header: Header


@dataclass(kw_only=True)
class Found:
    """What a folder holds; filled file by file."""

    objects: list[Object] = field(default_factory=list)
    problems: list[Unusable] = field(default_factory=list)
    #: Series with an object that cannot be used, though the run wants it; see `owned`.
    broken_series: set[Owned] = field(default_factory=set)
    by_series: bool  # what the run does not want is listed once a series, or once a file
    #: One patient's files say nothing of another's, whatever UIDs they share.
    by_patient: bool = False
    unwanted: set[tuple[Reason, Owned]] = field(default_factory=set)

    def owned(self, patient: str, uid: str) -> Owned:
        """Return what a UID names: within its patient where `by_patient`, else everywhere."""
        return patient if self.by_patient else "", uid

    def whose(self, header: Header) -> str:
        """Return whose a problem is where each patient is looked at alone; else nothing."""
        return header.patient if self.by_patient else ""


def may_be_slice(one: Quarantined, path: Path) -> bool:
    """Return whether a file that cannot be used may be a slice, for all that is known."""
    if one.reason is Reason.NOT_DICOM:
        return path.suffix.lower() in _NAMED_DICOM
    return one.reason not in _NO_SLICE or one.detail == WITHOUT_PIXELS
