"""A model's findings in the forms in which a hospital's systems show them.

Imported from here: equipment, identity, score, writing.
May import: client.dicom, client.dicom.codec, client.dicom.reading, client.site, common.
"""
