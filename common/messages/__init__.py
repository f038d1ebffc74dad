"""Messages between coordinator and site: packed, signed and bounded.

Imported from here: answer_sizes, cohort_statistics, enrolment, flower_http, flower_messages,
    flower_records, message_header, notice, packed_weights, packing, pull_headers, receipt,
    refusals, request_signature, signed_envelope, signing_key, transfer_progress, tunnel,
    wire.
May import: common.config, common.config.parts, common.data, common.metrics, common.platform,
    common.privacy, common.tasks.
"""
