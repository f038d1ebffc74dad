"""Rounds of a run: which answers enter, which weights are kept; no network in it.

Imported from here: approval, checkpoint_choice, cohort_asking, cohort_report, cohort_survey,
    journal, late_answers, non_admission_reasons, quorum, round_record, run_rounds, run_setting,
    run_state, update_admission, update_norm_bound.
May import: server.aggregation, server.enrolment, server.files, common.
"""
