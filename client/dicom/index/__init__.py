"""A folder's images by their headers, in a database: read once, looked up ever after.

Imported from here: copies, index, series_remarks.
May import: client.dicom, client.dicom.headers, client.dicom.reading, client.site, common.
"""
