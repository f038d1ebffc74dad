"""Where the sites of a simulation work: here, on processes, or on a Ray cluster.

Imported from here: engine_choice.
May import: client, common, server.
"""
