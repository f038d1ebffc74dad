"""The story of a run: rounds, which answers enter, which weights are kept; no network in it.

Imported from here: admission, approval, checkpoint_choice, cohort_asking, cohort_report,
    cohort_survey, deadline, fault, journal, quorum, round_record, run_rounds, run_state, setting.
May import: server.aggregation, server.enrolment, server.files, common.
"""
