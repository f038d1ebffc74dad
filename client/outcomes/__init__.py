"""Table of outcomes from FHIR R4 or OMOP.

Imported from here: fhir_patient, fhir_records, fhir_server, omop, outcome_table, outcomes_yaml,
    records, table_schema.
May import: client.labels, client.site, client.transport, client.transport.authorization, common.
"""
