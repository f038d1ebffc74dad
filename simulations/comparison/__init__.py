"""What federation buys: the same patients, split the same way, trained in several ways.

Imported from here: arm_configurations, arms, cohorts, compare, not_used, verdicts, virtual_sites.
May import: simulations.engines, simulations.synthetic, client, common, server.
"""
