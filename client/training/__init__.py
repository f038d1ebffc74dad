"""A local round: weights in, an update or counts out, on a site's own patients.

Imported from here: batches, blending, cohort_features, device, evaluation, fine_tuning,
    kept_between_rounds, local_model, local_round, personal_models, private_round, step_timing,
    training_site.
May import: client.cohort, client.privacy, client.site, common.
"""
