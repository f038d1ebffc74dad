"""From a folder and a table to the patients, images and parts that a run can use.

Imported from here: column_check, found, image_intake, images, label_join, left_out, loading,
    other_formats, outcome_rows, pixel_quality, quality, quality_rules, series_choice, split.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.index,
    client.dicom.masks, client.dicom.pixels, client.dicom.reading, client.labels, client.site,
    common.
"""
