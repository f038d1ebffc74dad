"""Calls of Flower's that come often, answered without its application; objects as files.

Imported from here: frequent_calls, object_files, object_news, presence, replies,
    transfers.
May import: server.http, common.
"""
