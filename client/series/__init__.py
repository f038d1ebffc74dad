"""Which series and images a run takes of a study, by their headers alone.

Imported from here: alignment, by_row, common_grid, fitting, magnification, neighbours, selection.
May import: client.dicom, client.dicom.headers, client.dicom.reading, common.
"""
