"""What sections of a configuration are made of: base, numbers, ranges, names of extensions.

Imported from here: coded_concept, extension, ranges, section, units.
May import: nothing.
"""
