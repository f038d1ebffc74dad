"""`wardround-simulate`: many hospitals on one machine, before anyone signs anything.

Imported from here: progress.
May import: simulations.comparison, simulations.engines, simulations.report, client, common, server.
"""
