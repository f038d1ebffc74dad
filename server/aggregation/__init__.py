"""Aggregation of the sites' updates to the next weights, by configurable rules.

Imported from here: rules.
May import: common.
"""
