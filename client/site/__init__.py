"""A site's own files: its home, site.yaml, keys, caches, withdrawals.

Imported from here: cache, cohort_claim, daemon_process, extensions_section, fhir_section, home,
    hours, oauth_section, pacs_section, plain_text, policy_section, private_file, pseudonyms,
    quality_section, results_section, shared_database, site_config, terminal, withdrawals,
    yaml_part.
May import: common.
"""
