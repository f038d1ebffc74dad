"""A model's findings in the forms in which a hospital's systems show them.

`writing.write_results` is the one entry; it writes, for one Score,

    report.py             DICOM SR, Comprehensive 3D SR by TID 1500 (PS3.16)
    segmentation.py       DICOM SEG, BINARY, where the model outlined something
    capture.py            DICOM secondary capture with the picture and its label burned in
    diagnostic_report.py  FHIR R4 DiagnosticReport with its Observations

Each says that it is research and not for clinical use. They go back to the hospital that the
images are from and carry its patient and study as the sources do; nothing here de-identifies.
"""
