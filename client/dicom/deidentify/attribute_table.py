"""Table of what becomes of each attribute; what is not named here does not leave.

PS3.15 table E.1-1 names what to take out, and leaves in what it does not name. This table is
the other way round: what it does not name is taken out, at every depth, private attributes
among it. So an attribute that nobody thought of, that a later edition adds or that a scanner
misuses stays in the hospital. Checked against table E.1-1 of edition 2026c.
"""

from __future__ import annotations

from enum import Enum

from pydicom.datadict import tag_for_keyword

from client.dicom.deidentify.defined_terms import TERMS


class Action(Enum):
    """What is done with an attribute's value."""

    NUMBER = "kept where it is a number, written anew from the number"
    TERM = "kept where it is a defined term of the attribute, else taken out"
    UID = "replaced by the keyed pseudonym"
    KNOWN_UID = "kept where PS3.6 registers it, else taken out"
    KNOWN_TAG = "kept where PS3.6 registers the attribute, else taken out"
    DATE = "shifted by the patient's own number of days, or emptied"
    DATETIME = "its date shifted, its time of day taken out"
    TIME = "midnight where there is one, as times of day find an examination in any schedule"
    VENDOR = "one of the great makers' names, or a word that says nothing"
    EMPTY = "emptied"
    REPLACE = "replaced by a word that says nothing, where one has to be there"
    SEQUENCE = "its items treated likewise"
    CODES = "items kept whose code PS3.16 knows, with the meaning from there"
    CHARACTERISTIC = "kept on request, where it is well formed"


_NUMBERS = """
Rows Columns NumberOfFrames PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
SpacingBetweenSlices SliceThickness SliceLocation ImagePositionPatient ImageOrientationPatient
RescaleSlope RescaleIntercept WindowCenter WindowWidth PixelAspectRatio PixelPaddingValue
PixelPaddingRangeLimit InstanceNumber SeriesNumber AcquisitionNumber TemporalPositionIdentifier
NumberOfTemporalPositions TemporalResolution TemporalPositionIndex InStackPositionNumber
DimensionIndexValues FrameAcquisitionNumber LossyImageCompressionRatio
PixelIntensityRelationshipSign

KVP ExposureTime XRayTubeCurrent Exposure ExposureInuAs ExposureTimeInuS XRayTubeCurrentInuA
GeneratorPower FocalSpots DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt
TableHeight TableSpeed TableFeedPerRotation SpiralPitchFactor ReconstructionDiameter
DataCollectionDiameter SingleCollimationWidth TotalCollimationWidth RevolutionTime CTDIvol
ReconstructionFieldOfView ReconstructionPixelSpacing TablePosition
ReconstructionTargetCenterPatient DataCollectionCenterPatient ExposureInmAs
ExposureTimeInms XRayTubeCurrentInmA BodyPartThickness CompressionForce RelativeXRayExposure
PositionerPrimaryAngle PositionerSecondaryAngle DetectorElementSpacing FieldOfViewDimensions
EstimatedRadiographicMagnificationFactor ExposureIndex TargetExposureIndex DeviationIndex
EntranceDoseInmGy OrganDose HalfValueLayer

RepetitionTime EchoTime InversionTime FlipAngle EchoTrainLength EchoNumbers NumberOfAverages
ImagingFrequency MagneticFieldStrength NumberOfPhaseEncodingSteps PercentSampling
PercentPhaseFieldOfView PixelBandwidth AcquisitionMatrix SAR dBdt TriggerTime NominalInterval
HeartRate CardiacNumberOfImages DiffusionBValue DiffusionGradientOrientation EffectiveEchoTime
RFEchoTrainLength GradientEchoTrainLength MRAcquisitionFrequencyEncodingSteps
MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionPhaseEncodingStepsOutOfPlane
ParallelReductionFactorInPlane TransmitterFrequency InversionTimes

FrameReferenceTime ActualFrameDuration DecayFactor DoseCalibrationFactor ScatterFractionFactor
RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction NumberOfSlices
NumberOfTimeSlices ImageIndex SliceSensitivityFactor PrimaryPromptsCountsAccumulated
NumberOfEnergyWindows NumberOfDetectors NumberOfRotations EnergyWindowVector DetectorVector
RotationVector SliceVector AngularViewVector TimeSliceVector

FrameTime FrameTimeVector CineRate RecommendedDisplayFrameRate StartTrim StopTrim FrameDelay
ActualFrameDuration EffectiveDuration RegionSpatialFormat RegionDataType RegionFlags
RegionLocationMinX0 RegionLocationMinY0 RegionLocationMaxX1 RegionLocationMaxY1
PhysicalUnitsXDirection PhysicalUnitsYDirection PhysicalDeltaX PhysicalDeltaY ReferencePixelX0
ReferencePixelY0 ReferencePixelPhysicalValueX ReferencePixelPhysicalValueY TransducerFrequency
PulseRepetitionFrequency MechanicalIndex BoneThermalIndex CranialThermalIndex
AcquisitionDuration SpecificAbsorptionRateValue
SoftTissueThermalIndex DepthOfScanField UltrasoundColorDataPresent

SegmentNumber ReferencedSegmentNumber ReferencedFrameNumber MaximumFractionalValue
RecommendedDisplayCIELabValue
"""
_UIDS = """
SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedSOPInstanceUID
SynchronizationFrameOfReferenceUID DimensionOrganizationUID ConcatenationUID
SOPInstanceUIDOfConcatenationSource
"""
_KNOWN_UIDS = "SOPClassUID ReferencedSOPClassUID"
_KNOWN_TAGS = "DimensionIndexPointer FunctionalGroupPointer FrameIncrementPointer"
_DATES = "StudyDate SeriesDate AcquisitionDate ContentDate"
_DATETIMES = "AcquisitionDateTime FrameAcquisitionDateTime FrameReferenceDateTime"
#: Type 2 of images' modules: they have to be there, and may be empty.
_EMPTY = """
AccessionNumber StudyID ReferringPhysicianName PatientBirthDate PositionReferenceIndicator
ContentDescription ContentCreatorName AcquisitionContextSequence
"""
_TIMES = "StudyTime SeriesTime AcquisitionTime ContentTime"
#: Type 1: a text has to be there.
REPLACEMENTS = {
    "StackID": "1",
    "SegmentLabel": "Segment",
    "SegmentAlgorithmName": "Algorithm",
    "ContentLabel": "DEIDENTIFIED",
    "ManufacturerModelName": "REMOVED",
    "SoftwareVersions": "REMOVED",
    "DeviceSerialNumber": "REMOVED",
}
_SEQUENCES = """
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence
PlanePositionSequence PlaneOrientationSequence FrameContentSequence
PixelValueTransformationSequence FrameVOILUTSequence FrameAnatomySequence
CTImageFrameTypeSequence MRImageFrameTypeSequence PETFrameTypeSequence CTExposureSequence
CTAcquisitionTypeSequence CTAcquisitionDetailsSequence CTTableDynamicsSequence
CTGeometrySequence CTReconstructionSequence CTPositionSequence CTXRayDetailsSequence
MRTimingAndRelatedParametersSequence MREchoSequence MRModifierSequence MRFOVGeometrySequence
MRAveragesSequence MRDiffusionSequence DiffusionGradientDirectionSequence
MRImagingModifierSequence TemporalPositionSequence CardiacSynchronizationSequence
DerivationImageSequence SourceImageSequence ReferencedImageSequence ReferencedSeriesSequence
ReferencedInstanceSequence DimensionOrganizationSequence DimensionIndexSequence
SequenceOfUltrasoundRegions SegmentSequence SegmentIdentificationSequence
RadiopharmaceuticalInformationSequence SpecificAbsorptionRateSequence
"""
_CODES = """
AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence
ViewCodeSequence ViewModifierCodeSequence DerivationCodeSequence PurposeOfReferenceCodeSequence
SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
PatientOrientationCodeSequence PatientOrientationModifierCodeSequence
PatientGantryRelationshipCodeSequence RadionuclideCodeSequence
"""
#: PS3.15 E.3.7, Retain Patient Characteristics Option.
_CHARACTERISTICS = "PatientSex PatientAge PatientSize PatientWeight"


def _by_tag() -> dict[int, Action]:
    found: dict[int, Action] = {}
    for action, names in (
        (Action.NUMBER, _NUMBERS),
        (Action.UID, _UIDS),
        (Action.KNOWN_UID, _KNOWN_UIDS),
        (Action.KNOWN_TAG, _KNOWN_TAGS),
        (Action.DATE, _DATES),
        (Action.DATETIME, _DATETIMES),
        (Action.EMPTY, _EMPTY),
        (Action.SEQUENCE, _SEQUENCES),
        (Action.CODES, _CODES),
        (Action.CHARACTERISTIC, _CHARACTERISTICS),
        (Action.TERM, " ".join(TERMS)),
        (Action.TIME, _TIMES),
        (Action.VENDOR, "Manufacturer"),
        (Action.REPLACE, " ".join(REPLACEMENTS)),
    ):
        for name in names.split():
            tag = tag_for_keyword(name)
            if tag is None:
                message = f"PS3.6 knows no attribute {name}"
                raise KeyError(message)
            found[tag] = action
    return found


#: Tag -> what becomes of it. An attribute that is not here is taken out.
ACTIONS = _by_tag()

#: Storage classes of images whose attributes this table is for (PS3.4 B.5). Reports, waveforms,
#: documents and plans hold text and names where no table finds them; they are refused.
IMAGES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        "1",
        "1.1",
        "1.1.1",
        "1.2",
        "1.2.1",
        "1.3",
        "1.3.1",
        "2",
        "2.1",
        "2.2",
        "3",
        "3.1",
        "4",
        "4.1",
        "4.3",
        "4.4",
        "5",
        "6",
        "6.1",
        "7",
        "7.1",
        "7.2",
        "7.3",
        "7.4",
        "12.1",
        "12.1.1",
        "12.2",
        "12.2.1",
        "20",
        "66.4",
        "77.1.1",
        "77.1.4",
        "77.1.5.1",
        "77.1.5.2",
        "128",
        "128.1",
    )
)
