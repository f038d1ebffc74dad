"""Reading DICOM."""
