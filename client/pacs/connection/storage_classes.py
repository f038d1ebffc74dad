"""Usual storage SOP classes of a modality, for a PACS that names none.

In an association each class takes as many presentation contexts as there are transfer syntaxes, so
only eight can be proposed (PS3.8 9.3.2.2); the most usual come first.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom import uid

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


def classes_of(modality: str) -> list[str]:
    """Return SOP Class UIDs, the most usual first."""
    return [str(found) for found in (*_BY_MODALITY.get(modality, _UNKNOWN), *_SECONDARY)]
