"""Secondary capture with a picture of the finding (PS3.3 A.8.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from client.results.codes import short
from client.results.equipment import ReportedScore, new_instance, reference, stamp
from client.results.identity import Kind
from client.results.orientation import sides_of
from client.results.picture import chosen_frame, draw


def capture(finding: ReportedScore) -> Dataset | None:
    """Return the capture; None where there is neither heatmap nor outline to show."""
    position = chosen_frame(finding)
    if position is None:
        return None
    picture = draw(finding, position)
    number, frame = finding.source.frames[position]
    header = finding.source.headers[number]
    dataset = new_instance(finding, Kind.CAPTURE, SecondaryCaptureImageStorage)
    stamp(dataset, finding, Kind.CAPTURE)
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = short(f"Drawn by {finding.score.model.name}; text burned in")
    heatmap = finding.score.heatmap
    whole = heatmap is not None and heatmap.picture is not None
    dataset.SourceImageSequence = [reference(header, None if whole else frame)]
    # Type 2C: the picture keeps the source's sides, which its own header may not name.
    sides = None if whole else sides_of(header, finding.source.read[number], frame)
    dataset.PatientOrientation = header.get("PatientOrientation") or (
        "" if sides is None else [sides.right, sides.bottom]
    )
    dataset.Laterality = header.get("Laterality") or header.get("ImageLaterality") or ""
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = (
        dataset.ContentDate,
        dataset.ContentTime,
    )
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = picture.shape
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if header.get("LossyImageCompression") == "01":
        # Once lossy, always lossy (PS3.3 C.7.6.1.1.5).
        for name in ("Compression", "CompressionRatio", "CompressionMethod"):
            if header.get(f"LossyImage{name}"):
                setattr(dataset, f"LossyImage{name}", header.get(f"LossyImage{name}"))
    data = picture.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    return dataset
