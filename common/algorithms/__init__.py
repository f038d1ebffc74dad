"""Algorithms of federated optimisation: what each adds to a site's steps and to a round.

Imported from here: ditto, fedprox, scaffold.
May import: common.data.
"""
