"""Names, units and codes of the features that are measured of a structure.

Definitions are those of the Image Biomarker Standardisation Initiative (Zwanenburg et al.,
Radiology 295:328, 2020, and its reference manual), whose codes they carry; DICOM has those of
shapes in PS3.16 CID 7477. IBSI does not define lengths in a plane, pieces and the standard
deviation.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

#: Coding scheme of IBSI's features (PS3.16 8).
IBSI = "IBSI"
SNOMED = "SCT"
#: No code but our own.
OURS = ""


class FeatureName(NamedTuple):
    """What a feature is called, and where."""

    column: str  # in tables, behind the structure's name
    unit: str  # UCUM's code, or one of the two below
    scheme: str
    code: str  # in the scheme; empty where it has none
    meaning: str  # as the scheme words it


#: The unit of the image's values, and its square.
OF_IMAGE, OF_IMAGE_SQUARED = "image", "image squared"


class Feature(Enum):
    """A number that is measured of a structure."""

    VOLUME = FeatureName("volume_mm3", "mm3", IBSI, "YEKZ", "Volume from Voxel Summation")
    MESH_VOLUME = FeatureName("volume_mesh_mm3", "mm3", IBSI, "RNU0", "Volume of Mesh")
    SURFACE = FeatureName("surface_mm2", "mm2", IBSI, "C0JK", "Surface Area of Mesh")
    SURFACE_TO_VOLUME = FeatureName(
        "surface_to_volume_per_mm", "/mm", IBSI, "2PR5", "Surface to Volume Ratio"
    )
    SPHERICITY = FeatureName("sphericity", "1", IBSI, "QCFX", "Sphericity")
    COMPACTNESS_1 = FeatureName("compactness_1", "1", IBSI, "SKGS", "Compactness 1")
    COMPACTNESS_2 = FeatureName("compactness_2", "1", IBSI, "BQWJ", "Compactness 2")
    DISPROPORTION = FeatureName(
        "spherical_disproportion", "1", IBSI, "KRCK", "Spherical Disproportion"
    )
    ASPHERICITY = FeatureName("asphericity", "1", IBSI, "25C7", "Asphericity")
    DIAMETER = FeatureName("diameter_3d_mm", "mm", IBSI, "L0JK", "Maximum 3D Diameter of a Mesh")
    DIAMETER_IN_SLICE = FeatureName(
        "diameter_in_slice_mm", "mm", OURS, "", "Maximum diameter within a slice"
    )
    DIAMETER_ACROSS_ROWS = FeatureName(
        "diameter_across_rows_mm", "mm", OURS, "", "Maximum diameter within a plane of one row"
    )
    DIAMETER_ACROSS_COLUMNS = FeatureName(
        "diameter_across_columns_mm",
        "mm",
        OURS,
        "",
        "Maximum diameter within a plane of one column",
    )
    MAJOR_AXIS = FeatureName("major_axis_mm", "mm", IBSI, "TDIC", "Major Axis in 3D Length")
    MINOR_AXIS = FeatureName("minor_axis_mm", "mm", IBSI, "P9VJ", "Minor Axis in 3D Length")
    LEAST_AXIS = FeatureName("least_axis_mm", "mm", IBSI, "7J51", "Least Axis in 3D Length")
    ELONGATION = FeatureName("elongation", "1", IBSI, "Q3CK", "Elongation")
    FLATNESS = FeatureName("flatness", "1", IBSI, "N17B", "Flatness")
    PIECES = FeatureName("pieces", "1", OURS, "", "Pieces that do not touch")
    LARGEST_PIECE = FeatureName("largest_piece_mm3", "mm3", OURS, "", "Volume of the largest piece")

    MEAN = FeatureName("mean", OF_IMAGE, IBSI, "Q4LE", "Mean intensity")
    STANDARD_DEVIATION = FeatureName(
        "standard_deviation", OF_IMAGE, SNOMED, "386136009", "Standard Deviation"
    )
    VARIANCE = FeatureName("variance", OF_IMAGE_SQUARED, IBSI, "ECT3", "Intensity variance")
    SKEWNESS = FeatureName("skewness", "1", IBSI, "KE2A", "Intensity skewness")
    KURTOSIS = FeatureName("kurtosis", "1", IBSI, "IPH6", "Excess intensity kurtosis")
    MEDIAN = FeatureName("median", OF_IMAGE, IBSI, "Y12H", "Median intensity")
    MINIMUM = FeatureName("minimum", OF_IMAGE, IBSI, "1GSF", "Minimum intensity")
    PERCENTILE_10 = FeatureName(
        "percentile_10", OF_IMAGE, IBSI, "QG58", "10th intensity percentile"
    )
    PERCENTILE_90 = FeatureName(
        "percentile_90", OF_IMAGE, IBSI, "8DWT", "90th intensity percentile"
    )
    MAXIMUM = FeatureName("maximum", OF_IMAGE, IBSI, "84IY", "Maximum intensity")
    INTERQUARTILE_RANGE = FeatureName(
        "interquartile_range", OF_IMAGE, IBSI, "SALO", "Intensity interquartile range"
    )
    RANGE = FeatureName("range", OF_IMAGE, IBSI, "2OJQ", "Intensity range")
    MEAN_ABSOLUTE_DEVIATION = FeatureName(
        "mean_absolute_deviation", OF_IMAGE, IBSI, "4FUA", "Intensity-based mean absolute deviation"
    )

    @property
    def column(self) -> str:
        """What it is called in tables, behind its structure's name."""
        return self.value.column

    def unit_in(self, image: str) -> str:
        """Return UCUM's code of its unit in an image whose values are in that unit."""
        if self.value.unit == OF_IMAGE:
            return image
        if self.value.unit == OF_IMAGE_SQUARED:
            return image if image == "1" else f"({image})2"
        return self.value.unit


#: Those that need the grey values of an image.
INTENSITIES = frozenset(list(Feature)[list(Feature).index(Feature.MEAN) :])
