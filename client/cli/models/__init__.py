"""Commands of `wardround-site` for a trained model: predict, listen, calibrate.

Imported from here: calibrate, listen, predict.
May import: client.dicom, client.dicom.index, client.inference, client.inference.arrivals,
    client.inference.calibration, client.pacs.receivers, client.pacs.sending, client.radiomics,
    client.results, client.site, common.
"""
