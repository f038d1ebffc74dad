"""Reading of one file to its header and pixel values, and of slices to a volume.

Imported from here: files, frame_times, groups, never_decoded, padding, parse, phases, pixel_size,
    presentation_intent, read, rescale, technique, time_axis, tracer, uptake, volume.
May import: client.dicom, client.dicom.codec, client.site.
"""
