"""From the sites' updates to the next weights: rules chosen by configuration.

Imported from here: rules.
May import: common.
"""
