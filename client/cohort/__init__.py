"""Cohort of a run: patients, images and parts, made from a folder and a table.

Imported from here: column_check, decode, files, image, image_masks, image_quality, images,
    join_report, left_out, loading, pixel_quality, quality_refusals, scan, select, series_choice,
    site_cohort, split.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.index,
    client.dicom.masks, client.dicom.pixels, client.dicom.reading, client.files, client.labels,
    client.radiomics, client.series, client.site, client.slides, common.
"""
