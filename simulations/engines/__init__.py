"""Engines that run a simulation's sites: in process, on processes, or on Ray.

Imported from here: engine_choice.
May import: client, common, server.
"""
