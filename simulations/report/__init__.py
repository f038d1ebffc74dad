"""What a comparison found: the page, its pictures, and the model as a bundle.

Imported from here: page, results, tables.
May import: simulations.comparison, client, common, server.
"""
