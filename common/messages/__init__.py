"""All that travels between coordinator and site, how it is packed, signed and bounded.

Imported from here: cohort_statistics, enrolment, envelope, flower_http, flower_messages,
    flower_records, headers, identity, packing, pull_headers, receipt, refusals, request_signature,
    sizes, wire.
May import: common.config, common.data, common.metrics, common.platform, common.privacy,
    common.tasks.
"""
