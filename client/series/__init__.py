"""Which series and images a run takes of a study, by their headers alone.

Imported from here: magnification.
May import: client.dicom, client.dicom.headers.
"""
