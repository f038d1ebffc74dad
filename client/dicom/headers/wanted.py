"""Which elements of a header the index keeps or reading needs, and in which forms they stand."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.datadict import dictionary_VR, tag_for_keyword

from client.dicom.reading.read import ACQUIRED

#: What the index keeps or reading needs, by the keywords of PS3.6.
KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "StudyDescription",
    "SeriesDescription",
    "ManufacturerModelName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "BodyPartExamined",
    "SliceThickness",
    "ImagerPixelSpacing",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "Laterality",
    "ImageLaterality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "BurnedInAnnotation",
    "RescaleIntercept",
    "RescaleSlope",
    "DoseGridScaling",
    "LossyImageCompression",
    "SpecimenLabelInImage",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PresentationIntentType",
    "Units",
    "SUVType",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "ViewPosition",
    "RepetitionTime",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    *ACQUIRED,
)
#: Signed or not as the pixels are.
PADDING = frozenset({"PixelPaddingValue", "PixelPaddingRangeLimit"})
#: Private elements of Siemens' and GE's MR headers, by names of ours.
PRIVATE = {
    "SiemensImagesInMosaic": 0x0019100A,
    "SiemensBValue": 0x0019100C,
    "GeBValue": 0x00431039,
    "SiemensAcquisitionMatrix": 0x0051100B,
}
#: Those that are looked at as they lie in the file: digits, in one of these forms.
B_VALUES = frozenset({"SiemensBValue", "GeBValue"})
DIGITS_IN = frozenset({None, "IS", "UN", "LO", "DS"})


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


#: Tag -> (keyword, value representation as explicit files write it).
WANTED: Mapping[int, tuple[str, bytes]] = {
    _tag(name): (name, b"US" if name in PADDING else dictionary_VR(_tag(name)).encode())
    for name in KEYWORDS
} | {
    PRIVATE["SiemensImagesInMosaic"]: ("SiemensImagesInMosaic", b"US"),
    PRIVATE["SiemensBValue"]: ("SiemensBValue", b"IS"),
    PRIVATE["GeBValue"]: ("GeBValue", b"IS"),
    PRIVATE["SiemensAcquisitionMatrix"]: ("SiemensAcquisitionMatrix", b"SH"),
}
#: Forms beside that of WANTED in which an element may stand.
OTHER_FORMS: Mapping[int, frozenset[bytes]] = {
    **dict.fromkeys(PRIVATE.values(), frozenset({b"UN", b"LO"})),
    **{PRIVATE[name]: frozenset({b"UN", b"LO", b"DS"}) for name in B_VALUES},
    **{_tag(name): frozenset({b"SS"}) for name in PADDING},
}
#: Private elements in any other form are another maker's, and passed over.
FOREIGN = frozenset(PRIVATE.values())
#: Numbers of two bytes.
SHORTS = frozenset(name for name, form in WANTED.values() if form == b"US")
