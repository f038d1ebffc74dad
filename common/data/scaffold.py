"""SCAFFOLD (Karimireddy et al. 2020, algorithm 1, option II): both halves in one place."""

from __future__ import annotations

from common.data.weights import Weights, add_scaled


def next_control(own: Weights, server: Weights, delta: Weights, reach: float) -> Weights:
    """Site: return c_i+ = c_i - c + (x - y) / (K x rate); reach is K x rate, delta is y - x."""
    return {name: own[name] - server[name] - delta[name] / reach for name in own}


def next_server_control(server: Weights, mean_change: Weights, share: float) -> Weights:
    """Coordinator: return c + |S| / N x mean of (c_i+ - c_i); share is |S| / N."""
    return add_scaled(server, mean_change, share)
