"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples everywhere, and no limit by the clock: a busy machine is no fault of the code.
settings.register_profile("wardround", deadline=None, derandomize=True)
settings.load_profile("wardround")
