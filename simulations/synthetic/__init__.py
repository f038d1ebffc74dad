"""Invented hospitals: folders of real DICOM and a labels.csv.

Imported from here: hospitals.
May import: common.
"""
