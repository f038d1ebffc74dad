"""Extensions: what runs take from installed distributions that are not Wardround's.

No code travels. What a configuration names is loaded from what is installed here, after its files
were hashed and found to be those that were approved.

Imported from here: aggregators, content, contract, foreign_code, global_state, loading, losses,
    metrics, pinning, recorded, seeded, tasks, transforms.
May import: common.config, common.config.parts, common.config.tasks, common.metrics,
    common.platform.
"""
