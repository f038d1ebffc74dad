"""Features of an outlined structure: its shape and its grey values, as IBSI defines them.

Imported from here: feature, measured, outline, surface_mesh.
May import: client.dicom.
"""
