"""Forecast of what a run would cost and need.

Imported from here: doctor_checks, forecast, measuring, planned_run.
May import: server.aggregation, server.enrolment, server.files, server.rounds, common.
"""
