"""Inference: a trained model scores a hospital's own studies.

Imported from here: fit_calibration, inputs, local, trained_model.
May import: client.cohort, client.dicom, client.dicom.headers, client.dicom.pixels,
    client.dicom.reading, client.inference.calibration, client.labels, client.privacy,
    client.radiomics, client.results, client.series, client.site, client.slides, common.
"""
