"""First weights that a run names by their hash, held against the files in this site's home.

Guarantee: nothing but bytes of a file of that name is read, and they are hashed, not loaded.
"""

from __future__ import annotations

from client.governance.policy import Denied
from common.config.run_config import RunConfig
from common.data.weight_files import weights_fault
from common.messages.refusals import RefusalReason


def judge_first_weights(config: RunConfig) -> Denied | None:
    """Return why the run cannot begin from its weights here, or None where it can."""
    start = config.in_force().model.start
    fault = None if start is None else weights_fault(start.sha256)
    return None if fault is None else Denied(reason=RefusalReason.WEIGHTS, detail=fault)
