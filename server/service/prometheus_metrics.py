"""Prometheus metrics of the coordinator; no label holds anything of a patient.

Labels are names of sites, as they were invited, and words of ours.

Public: CoordinatorMeters.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from common.messages.refusals import RefusalReason
from server.rounds.non_admission_reasons import Fault

#: Seconds, from a round on features to a wait for a site that is closed for the night.
_BUCKETS = (0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 4 * 3600, 24 * 3600)
#: A label for each reason that a record may hold, so that no text of a site's becomes one.
_REASONS = {reason.value: reason.name.lower() for kind in (RefusalReason, Fault) for reason in kind}
_REASONS["it did not answer"] = "no_answer"


class CoordinatorMeters:
    """The meters of the service; each method is named after what happened."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._up = Gauge(
            "wardround_site_up",
            "1 while an accepted site is connected.",
            ["site"],
            registry=registry,
        )
        self._rounds = Counter("wardround_rounds", "Rounds that were done.", registry=registry)
        self._updates = Counter(
            "wardround_updates", "Updates that were admitted.", ["site"], registry=registry
        )
        self._left_out = Counter(
            "wardround_left_out",
            "Sites that a round did without, by reason.",
            ["site", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "wardround_phase_seconds",
            "Time of one phase of a run.",
            ["phase"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._bytes = Counter(
            "wardround_bytes",
            "Bytes of messages, as packed, seen from the coordinator.",
            ["site", "direction"],
            registry=registry,
        )
        self._epsilon = Gauge(
            "wardround_epsilon",
            "Epsilon of the run at work so far, as the site told.",
            ["site"],
            registry=registry,
        )
        self._runs = Gauge(
            "wardround_runs", "Runs by what became of them.", ["state"], registry=registry
        )

    def sites(self, members: Collection[str], online: Collection[str]) -> None:
        """Say which of the accepted sites are connected; a site that was revoked is forgotten."""
        self._up.clear()
        for name in members:
            self._up.labels(name).set(name in online)

    def round_done(self, updates: Iterable[str], left_out: Mapping[str, str]) -> None:
        """Count a round that ended: whose updates were admitted, and why others' were not."""
        self._rounds.inc()
        for site in updates:
            self._updates.labels(site).inc()
        for site, why in left_out.items():
            self._left_out.labels(site, _REASONS.get(why, "other")).inc()

    def told(self, epsilon: Mapping[str, float]) -> None:
        """Say what sites told of their spend."""
        for site, value in epsilon.items():
            self._epsilon.labels(site).set(value)

    def took(self, phase: str, seconds: float) -> None:
        """Count the time of a phase that ended."""
        self._seconds.labels(phase).observe(max(seconds, 0.0))

    def moved(self, site: str, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes to and from a site."""
        self._bytes.labels(site, "sent").inc(sent)
        self._bytes.labels(site, "received").inc(received)

    def runs(self, states: Iterable[str]) -> None:
        """Say in which states the runs are; one entry a run."""
        self._runs.clear()
        for state, number in Tally(states).items():
            self._runs.labels(state).set(number)
