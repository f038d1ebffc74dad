"""A model's findings as DICOM SR, SEG, secondary capture and FHIR.

Imported from here: codes, equipment, identity, measured_report, score, writing.
May import: client.dicom, client.dicom.codec, client.dicom.reading, client.radiomics, client.site,
    common.
"""
