"""Diagnosis, prognosis, segmentation."""
