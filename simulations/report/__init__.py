"""Report of a comparison: the page, its pictures, and the model as a bundle.

Imported from here: bundle_output, output, results.
May import: simulations.comparison, client, common, server.
"""
