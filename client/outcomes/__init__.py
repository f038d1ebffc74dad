"""Outcomes from where a hospital keeps them: FHIR R4 and OMOP, to one table of labels.

Imported from here: building, declaring, fhir_records, fhir_server, omop, plan, records.
May import: client.labels, client.site, client.transport, common.
"""
