"""Database of a folder's images by their headers; each file is read once.

Imported from here: copies, index, series_remarks.
May import: client.dicom, client.dicom.headers, client.dicom.reading, client.site, common.
"""
