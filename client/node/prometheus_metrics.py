"""Prometheus metrics of a site; no label holds anything of a patient.

Public: SiteMeters.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

Kind = Literal["proposal", "statistics", "train", "evaluation"]
Outcome = Literal["done", "refused", "failed"]
Phase = Literal["fetch", "wait", "work", "send"]

#: Seconds, from a round on features to one on volumes over a slow link.
_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 4 * 3600)


class SiteMeters:
    """The meters of one site daemon; each method is named after what happened."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._answers = Counter(
            "wardround_site_answers",
            "Requests of the coordinator, by kind and how they ended.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "wardround_site_phase_seconds",
            "Time of one request, by phase.",
            ["phase"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._bytes = Counter(
            "wardround_site_bytes",
            "Bytes of messages, as packed.",
            ["direction"],
            registry=registry,
        )
        self._used = Gauge(
            "wardround_site_epsilon_used",
            "Epsilon that this cohort's patients have spent.",
            registry=registry,
        )
        self._limit = Gauge(
            "wardround_site_epsilon_limit",
            "Epsilon that they may spend in all runs together.",
            registry=registry,
        )
        self._restarts = Counter(
            "wardround_site_worker_restarts",
            "Times that the worker had to be started again.",
            registry=registry,
        )
        self._reached: dict[str, bool] = {}
        self._connected = Gauge(
            "wardround_site_connected", "1 while the coordinator answers.", registry=registry
        )
        self._paused = Gauge(
            "wardround_site_paused", "1 while the site takes no work.", registry=registry
        )

    def answered(self, kind: Kind, outcome: Outcome) -> None:
        """Count a request that came to its end."""
        self._answers.labels(kind, outcome).inc()

    def took(self, phase: Phase, seconds: float) -> None:
        """Count the time of a phase of one request."""
        self._seconds.labels(phase).observe(max(seconds, 0.0))

    def sent(self, size: int) -> None:
        """Count bytes that left."""
        self._bytes.labels("sent").inc(size)

    def received(self, size: int) -> None:
        """Count bytes that came."""
        self._bytes.labels("received").inc(size)

    def charged(self, used: float, limit: float) -> None:
        """Say where the cohort's budget stands now."""
        self._used.set(used)
        self._limit.set(limit)

    def worker_restarted(self) -> None:
        """Count a worker that died and is started again."""
        self._restarts.inc()

    def connected(self, federation: str, *, now: bool) -> None:
        """Say whether a federation's coordinator answers; the gauge is 1 where all of them do."""
        self._reached[federation] = now
        self._connected.set(all(self._reached.values()))

    def paused(self, now: bool) -> None:  # noqa: FBT001 - it is what there is to say
        """Say whether the site takes work."""
        self._paused.set(now)
