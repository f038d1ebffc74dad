"""Commands of `wardround-simulate`: many hospitals on one machine.

Imported from here: progress.
May import: simulations.comparison, simulations.engines, simulations.report, client, common, server.
"""
