from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from client.node.prometheus_metrics import SiteMeters


def test_a_site_counts_its_answers_time_bytes_and_budget() -> None:
    registry = CollectorRegistry()
    meters = SiteMeters(registry)
    meters.answered("train", "done")
    meters.answered("train", "done")
    meters.answered("proposal", "refused")
    meters.took("work", 2.5)
    meters.took("work", -1.0)  # the clock was set back
    meters.sent(1000)
    meters.received(3000)
    meters.charged(1.5, 3.0)
    meters.worker_restarted()
    meters.connected("first", now=True)
    meters.paused(False)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"wardround_site_{name}", labels)

    assert value("answers_total", kind="train", outcome="done") == 2
    assert value("answers_total", kind="proposal", outcome="refused") == 1
    assert value("phase_seconds_sum", phase="work") == 2.5
    assert value("phase_seconds_count", phase="work") == 2
    assert value("bytes_total", direction="sent") == 1000
    assert value("bytes_total", direction="received") == 3000
    assert (value("epsilon_used"), value("epsilon_limit")) == (1.5, 3.0)
    assert value("worker_restarts_total") == 1
    assert (value("connected"), value("paused")) == (1, 0)


def test_two_sites_in_one_process_count_apart() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    SiteMeters(first).sent(5)
    SiteMeters(second)
    assert b'wardround_site_bytes_total{direction="sent"} 5.0' in generate_latest(first)
    assert b'direction="sent"' not in generate_latest(second)
