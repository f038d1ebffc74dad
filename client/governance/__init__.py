"""Decisions and records of a hospital: policy, approvals, disclosures.

Imported from here: approvals, decisions_log, disclosures, extensions, first_weights, plain_words,
    policy, records_check, records_loss, repetition_limits, request_admission.
May import: client.privacy, client.site, common.
"""
