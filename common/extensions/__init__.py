"""Extensions: networks of installed distributions that are not Wardround's, found by content.

No code travels. What a configuration names is loaded from what is installed here, after its files
were hashed and found to be those that were approved.

Imported from here: content, contract, loading, pinning.
May import: common.config, common.platform.
"""
