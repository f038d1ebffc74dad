"""What a comparison found: the page, its pictures, and the model as a bundle.

Imported from here: bundle_output, output, tables.
May import: simulations.comparison, client, common, server.
"""
