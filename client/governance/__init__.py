"""What a hospital decides and can prove: its policy, approvals, disclosures and records.

Imported from here: admission, approvals, disclosures, extensions, plain_words, policy, records,
    records_loss, repetition.
May import: client.privacy, client.site, common.
"""
