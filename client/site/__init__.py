"""A site's own files: its home, site.yaml, keys, caches, withdrawals.

Imported from here: cache, extension_rules, home, hours, pacs_config, plain_text, policy_rules,
    private_file, pseudonyms, quality_rules, shared_database, site_config, terminal, withdrawals,
    yaml_part.
May import: common.
"""
