"""Regions: a coordinator of several hospitals that answers another coordinator as one site.

Imported from here: nothing.
May import: server.aggregation, server.rounds, common.
"""
