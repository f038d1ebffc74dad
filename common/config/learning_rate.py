"""Learning rate of a round."""

from __future__ import annotations

import math

from common.config.run_config import Training


def learning_rate(rules: Training, round_number: int) -> float:
    """Return the learning rate of a round; cosine falls to 5 % at the last."""
    if rules.schedule == "constant" or rules.rounds == 1:
        return rules.learning_rate
    progress = (min(round_number, rules.rounds) - 1) / (rules.rounds - 1)
    return rules.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
