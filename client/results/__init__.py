"""A model's findings as DICOM SR, SEG, secondary capture and FHIR.

Imported from here: equipment, identity, score, writing.
May import: client.dicom, client.dicom.codec, client.dicom.reading, client.site, common.
"""
