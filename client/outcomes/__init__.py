"""Outcomes from where a hospital keeps them: FHIR R4 and OMOP, to one table of labels.

Imported from here: fhir_records, fhir_server, omop, outcome_table, outcomes_yaml, records,
    table_schema.
May import: client.labels, client.site, client.transport, common.
"""
