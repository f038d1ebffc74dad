"""A local round: weights in, an update or counts out, on a site's own patients.

Imported from here: batches, blending, device, evaluation, features, fine_tuning,
    kept_between_rounds, local_model, local_round, private_round, site, step_timing.
May import: client.cohort, client.privacy, client.site, common.
"""
