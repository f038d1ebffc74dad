"""Outcomes from where a hospital keeps them: FHIR R4 and OMOP, to one table of labels.

`plan` is what the site's admin writes, `records` what any source says of patients, `building` the
table that follows from both; `fhir_server`, `fhir_records` and `omop` are the sources.
"""
