"""The section `quality` of site.yaml: what a hospital does with suspect images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.config.parts.section import Part, PositiveFloat

Action = Literal["leave_out", "warn", "off"]
#: Rules by which one patient's images may take another's out.
_COMPARING = ("two_patient_ids", "same_pixels", "spacing_outliers")


class QualityRules(Part):
    """What becomes of an image with a fault: left out, reported only, or not looked for.

    By default what is proven is left out and what is suspect is reported. Nothing here ever
    stops a run: it trains on what is left. What cannot be read, and what a run's own
    configuration asks for (modality, part of the body, side), is no choice of the site's. In runs
    with privacy, two_patient_ids, same_pixels and spacing_outliers only warn: what becomes of one
    patient must not follow from another's images.
    """

    two_patient_ids: Action = Field(
        default="leave_out",
        description="One image or one study (by its UID) under two PatientIDs: one person may "
        "count as two, and train and test the same model. leave_out, warn, or off.",
    )
    localizers: Action = Field(
        default="leave_out", description="Scouts, by ImageType. leave_out, warn, or off."
    )
    same_pixels: Action = Field(
        default="warn",
        description="Equal pixels under two PatientIDs, though the UIDs differ. leave_out, warn, "
        "or off.",
    )
    derived: Action = Field(
        default="warn",
        description="Secondary captures and images with the ImageType SECONDARY. leave_out, warn, "
        "or off.",
    )
    saturated: Action = Field(
        default="warn",
        description="More than half of the image at its highest value. leave_out, warn, or off.",
    )
    spacing_outliers: Action = Field(
        default="warn",
        description="Pixel or slice spacing far from this site's other series of the modality. "
        "leave_out, warn, or off.",
    )
    spacing_deviations: PositiveFloat = Field(
        default=8.0, description="How far that is, in median absolute deviations of the logarithm."
    )
    pixel_shape: Action = Field(
        default="warn",
        description="PixelSpacing, PixelAspectRatio or ultrasound regions give pixels several "
        "shapes; spacing counts, for ultrasound its regions. leave_out, warn, or off.",
    )
    burned_in_text: Action = Field(
        default="warn",
        description="BurnedInAnnotation is YES, or text was read in the picture. leave_out, warn, "
        "or off.",
    )
    read_text: bool = Field(
        strict=True,
        default=False,
        description="Read ultrasound and secondary captures for text in `wardround-site report` "
        "(slow; needs what the lock ocr.txt names). No reader finds all text.",
    )

    def by_patient(self) -> QualityRules:
        """Return the rules as they are in a run with privacy: none takes out what others have."""
        warned = {n: "warn" for n in _COMPARING if getattr(self, n) == "leave_out"}
        return self.model_copy(update=warned)

    laterality: Action = Field(
        default="leave_out",
        description="Image and table name different sides (cohort.images.laterality_column). "
        "leave_out, warn, or off.",
    )
