"""Invented hospitals: folders of real DICOM and a labels.csv, all patients invented.

Imported from here: hospitals.
May import: common.
"""
