"""Real hospitals as the `Sites` of a run: asked over Flower, waited for, asked again.

Imported from here: flower_sites, runtime, turn.
May import: server.files, server.rounds, common.
"""
