"""Storage SOP classes to propose, for a PACS that does not say what a series holds.

SOPClassUID is optional in a PACS's answers (PS3.4 C.6.2.1). An association has at most 128 contexts
(PS3.8 9.3.2.2), and compressed images want one for each class and transfer syntax, as a context
that offers several brings only what the PACS picks. So the usual classes of the modality come
first, with all syntaxes; then all others uncompressed, in which most PACS hold or make them; last
those of the others that are compressed, few at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydicom import uid
from pynetdicom import AllStoragePresentationContexts

from client.pacs.connection.association import COMPRESSED, MOST_CONTEXTS, UNCOMPRESSED, Proposal

_SECONDARY = (uid.SecondaryCaptureImageStorage,)
_BY_MODALITY: Mapping[str, tuple[uid.UID, ...]] = {
    "CT": (
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
    ),
    "MR": (
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
    ),
    "PT": (uid.PositronEmissionTomographyImageStorage, uid.EnhancedPETImageStorage),
    "NM": (uid.NuclearMedicineImageStorage,),
    "US": (uid.UltrasoundImageStorage, uid.UltrasoundMultiFrameImageStorage),
    "CR": (uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation),
    "DX": (
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.ComputedRadiographyImageStorage,
    ),
    "MG": (
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.BreastTomosynthesisImageStorage,
    ),
    "XA": (uid.XRayAngiographicImageStorage, uid.EnhancedXAImageStorage),
    "RF": (uid.XRayRadiofluoroscopicImageStorage, uid.EnhancedXRFImageStorage),
    "OP": (uid.OphthalmicPhotography8BitImageStorage, uid.OphthalmicPhotography16BitImageStorage),
    "OPT": (uid.OphthalmicTomographyImageStorage,),
    "SM": (uid.VLWholeSlideMicroscopyImageStorage,),
    "SEG": (uid.SegmentationStorage,),
    "RTSTRUCT": (uid.RTStructureSetStorage,),
}
_UNKNOWN = (
    uid.CTImageStorage,
    uid.MRImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.ComputedRadiographyImageStorage,
    uid.UltrasoundImageStorage,
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.PositronEmissionTomographyImageStorage,
)


_ALL = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
#: One context of an association is the query's own.
_ROOM = MOST_CONTEXTS - 1


def classes_of(modality: str) -> list[str]:
    """Return SOP Class UIDs, the most usual first."""
    return [str(found) for found in (*_BY_MODALITY.get(modality, _UNKNOWN), *_SECONDARY)]


def proposals(classes: Iterable[str]) -> Iterator[list[Proposal]]:
    """Yield what to propose on an association for classes that are known or likely."""
    yield from _full(dict.fromkeys(classes), (UNCOMPRESSED, *COMPRESSED))


def further_proposals(tried: Iterable[str]) -> Iterator[list[Proposal]]:
    """Yield what to propose after these classes were: every other one of the standard.

    Some PACS (dcmtk's dcmqrscp) send on the first context of a class and on no other, so each
    compressed syntax comes alone, with the classes that were tried, too.
    """
    first = list(dict.fromkeys(tried))
    others = [one for one in _ALL if one not in first]
    yield from _full(others, (UNCOMPRESSED,))
    usual, rest = [*first, *others][:_ROOM], [*first, *others][_ROOM:]
    for syntax in COMPRESSED:
        yield from _full(usual, (syntax,))
    yield from _full(rest, COMPRESSED)


def _full(classes: Iterable[str], syntaxes: Sequence[Sequence[str]]) -> Iterator[list[Proposal]]:
    left, most = list(classes), _ROOM // len(syntaxes)
    for first in range(0, len(left), most):
        yield [(one, syntax) for one in left[first : first + most] for syntax in syntaxes]
