from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
import torch
from rich.console import Console

from client.governance.records_statement import Statement, sealed
from client.site.withdrawals import WithdrawalsHead
from common.config.run_config import RunConfig, parse_config
from common.data.weights import Weights
from common.messages.refusals import PASSING, RefusalReason
from common.messages.signed_envelope import seal
from common.messages.wire import EvaluationRequest, Refusal, SiteUpdate, Standing, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError
from common.privacy.plan import LedgerHead, Mechanism, Spend
from server.cli.plan_display import plan_frame
from server.planning.forecast import Forecast, forecast

NETWORKS = {
    "table": "cohort: {table: {numbers: [{column: age}, {column: crp}]}}\nmodel: {network: table}",
    "small_cnn": "cohort: {images: {size: [32, 32]}}\nmodel: {network: small_cnn, width: 16}",
}


def config_of(more: str = "", *, network: str = "table", privacy: str = "none") -> RunConfig:
    return parse_config(f"""
name: line
task: {{kind: diagnosis, target: ill}}
{NETWORKS[network]}
training: {{rounds: 4, optimizer: sgd}}
privacy: {privacy}
{more}
""")


def yes(
    site: str,
    patients: int | None = None,
    epsilon: float | None = None,
    left: float | None = None,
    seconds: float | None = None,
) -> Standing:
    return Standing(
        run="r",
        round=0,
        site=site,
        patients=patients,
        epsilon=epsilon,
        epsilon_left=left,
        seconds=seconds,
    )


def no(site: str, reason: RefusalReason) -> Refusal:
    return Refusal(run="r", round=0, site=site, reason=reason)


def drawn(weights: Weights) -> Weights:
    """Return weights as noise leaves them: every bit of every value is used."""
    generator = torch.Generator().manual_seed(1)
    return {n: torch.randn(v.shape, generator=generator) for n, v in weights.items()}


def shown(plan: Forecast) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(plan_frame(plan))
    return " ".join(out.getvalue().split())


# --- bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("encoding", ["lossless", "float16", "int8"])
@pytest.mark.parametrize("rule", ["mean", "scaffold"])
def test_real_messages_are_not_larger_than_forecast_and_not_much_smaller(
    network: str, encoding: str, rule: str
) -> None:
    more = f"exchange: {{encoding: {encoding}}}\naggregation: {{rule: {rule}}}"
    config = config_of(more, network=network).in_force()
    weights = drawn(initial_weights(config, 0))
    control = weights if rule == "scaffold" else None
    train = seal(
        TrainRequest(
            run="line-20261126-1", round=4, seed=7, config=config, weights=weights, control=control
        )
    ).size
    measure = seal(
        EvaluationRequest(
            run="line-20261126-1", round=4, seed=7, config=config, weights=weights, split="test"
        )
    ).size
    spend = Spend(
        mechanism=Mechanism(
            noise_multiplier=1 / 3, sampling_rate=1 / 3, steps=1, clip_norm=1 / 3, divisor=1 / 3
        ),
        run_epsilon=1 / 3,
        run_delta=1 / 3,
        cohort_epsilon=1 / 3,
        cohort_delta=1 / 3,
        ledger=LedgerHead(charges=10**6, hash="0" * 64),
        simulated_noise=False,
    )
    update = seal(
        SiteUpdate(
            run="line-20261126-1",
            round=4,
            site="n" * 60,
            delta=weights,
            steps=1,
            spend=spend,
            control_delta=control,
        ),
        config.exchange.encoding,
    ).size
    traffic = forecast(config, [], 3).traffic
    # Beside each message goes what the site gave to be kept for it, of whole blocks.
    home = Statement(
        ledger=LedgerHead(charges=10**6, hash="0" * 64),
        withdrawals=WithdrawalsHead(lines=10**6, hash="0" * 64, patients=10**6),
        spent={},
    )
    beside = len(sealed(home, b"key"))
    assert train + measure + 2 * beside <= traffic.to_site_by_round
    assert traffic.to_site_by_round <= 1.4 * (train + measure) + 2.1 * beside
    assert update + beside <= traffic.from_site_by_round - 25_000 - beside
    assert 4 * train + 5 * measure + 9 * beside <= traffic.to_site
    assert traffic.to_site <= 1.4 * (4 * train + 5 * measure) + 9.5 * beside


def test_a_run_that_keeps_its_last_round_is_measured_once() -> None:
    every = forecast(config_of(), [], 3).traffic
    once = forecast(config_of("selection: {rule: last}"), [], 3).traffic
    assert once.to_site_by_round < every.to_site_by_round
    assert every.to_site - once.to_site == 4 * (every.to_site_by_round - once.to_site_by_round)


# --- sites ---------------------------------------------------------------------------------


def test_without_answers_the_configuration_speaks_and_says_so() -> None:
    privacy = "{unit: patient, epsilon: 3.0, public_patients: {north: 200, south: 50}}"
    plan = forecast(config_of(privacy=privacy), [], 2)
    assert not plan.asked
    assert [(s.site, s.patients, s.delta) for s in plan.sites] == [
        ("north", 200, 1e-5),
        ("south", 50, 1e-5),
    ]
    assert all(s.epsilon is not None and 2.9 < s.epsilon <= 3.0 for s in plan.sites)
    assert plan.seconds is None
    text = shown(plan)
    assert "From the configuration alone: no site was asked." in text
    assert "epsilon 3 by patient" in text


def test_what_a_site_told_counts_more_than_what_was_agreed() -> None:
    privacy = "{unit: patient, epsilon: 3.0, public_patients: {north: 200}}"
    told = yes("north", patients=120, epsilon=2.5, left=7.0, seconds=3.0)
    (north,) = forecast(config_of(privacy=privacy), [told], 1).sites
    assert (north.patients, north.epsilon, north.epsilon_left) == (120, 2.5, 7.0)
    assert north.delta == 1e-5


def test_a_site_that_tells_nothing_is_promised_the_epsilon_of_the_run() -> None:
    (north,) = forecast(
        config_of(
            privacy="{unit: patient, epsilon: 3.0, default_patients: declared, delta: per_site}"
        ),
        [yes("north")],
        1,
    ).sites
    assert (north.patients, north.epsilon, north.delta) == (None, 3.0, None)


def test_a_site_that_nobody_agreed_a_number_for_cannot_take_part() -> None:
    privacy = "{unit: patient, epsilon: 3.0, public_patients: {north: 200}}"
    plan = forecast(config_of(privacy=privacy), [yes("north"), yes("south")], 2)
    assert [(s.site, bool(s.refuses)) for s in plan.sites] == [("north", False), ("south", True)]
    assert "public_patients" in shown(plan)


def test_epsilon_is_also_told_at_a_delta_at_which_all_runs_can_be_compared() -> None:
    privacy = "{unit: patient, epsilon: 3.0, delta: 0.001, public_patients: {north: 200}}"
    plan = forecast(config_of(privacy=privacy), [], 1)
    (north,) = plan.sites
    assert north.common_epsilon is not None
    assert 3.9 < north.common_epsilon < 4.4
    assert f"({north.common_epsilon:.3g} at delta 1e-05)" in plan.privacy
    assert "at 1e-5" in shown(plan)


def test_a_run_without_privacy_is_said_to_have_none() -> None:
    plan = forecast(config_of(), [yes("north", patients=120)], 1)
    assert plan.sites[0].epsilon is None
    assert "No privacy" in shown(plan)


def test_the_privacy_section_is_in_force_as_sites_approve_it() -> None:
    privacy = "{unit: patient, epsilon: 3.0, training: {rounds: 9, optimizer: sgd}}"
    config = config_of(privacy=privacy)
    plan = forecast(config, [], 2)
    assert plan.rounds == 9
    assert plan.fingerprint == config.in_force().fingerprint()


def test_time_is_that_of_the_slowest_site_and_unknown_unless_all_tell() -> None:
    slow, fast = yes("slow", seconds=9.0), yes("fast", seconds=3.0)
    assert forecast(config_of(), [slow, fast], 2).seconds == 36.0
    assert "about 36 s" in shown(forecast(config_of(), [slow, fast], 2))
    assert "45 s to 63 s, of which" in shown(forecast(config_of(), [slow, fast], 2))
    assert forecast(config_of(), [slow, yes("silent")], 2).seconds is None
    refused = no("gone", RefusalReason.TASK)
    assert forecast(config_of(), [slow, refused], 2).seconds == 36.0


def test_time_holds_what_each_exchange_takes_beside_the_work() -> None:
    plan = forecast(config_of(), [yes("quick", seconds=0.001)], 1)
    assert plan.exchanges == 4 + 4 // config_of().selection.every + 1
    text = shown(plan)
    assert "less than 1 s of work" in text
    assert f"for each of {plan.exchanges} exchanges" in text


def test_every_number_of_patients_says_whether_it_is_agreed_or_exact() -> None:
    privacy = "{unit: patient, epsilon: 3.0, public_patients: {north: 200}}"
    agreed = shown(forecast(config_of(privacy=privacy), [yes("north", patients=200, left=5.0)], 1))
    assert "200 agreed" in agreed
    assert "left after" in agreed
    assert "what this run leaves of the site's limit" in agreed
    assert "takes part" in agreed
    declared = "{unit: patient, epsilon: 3.0, default_patients: declared}"
    told = forecast(config_of(privacy=declared), [yes("north", patients=187)], 1)
    assert "187 exact" in shown(told)
    assert "120 exact" in shown(forecast(config_of(), [yes("north", patients=120)], 1))


# --- what would stop it --------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(RefusalReason))
def test_a_refusal_is_told_with_its_reason_and_stops_the_run_unless_it_may_pass(
    reason: RefusalReason,
) -> None:
    config = config_of("aggregation: {smallest_quorum: 2}")
    plan = forecast(config, [yes("north"), no("south", reason)], 2)
    assert reason.value in shown(plan)
    assert bool(plan.stops) == (reason not in PASSING)
    if plan.stops:
        assert "1 of 2 sites can take part, expected at least 2" in plan.stops[0]


def answers(count: int) -> Sequence[Standing]:
    return [yes(f"site-{number}") for number in range(count)]


def test_too_few_sites_for_a_quorum_or_for_krum_stop_the_run() -> None:
    quorum = config_of("aggregation: {smallest_quorum: 3}")
    assert forecast(quorum, answers(2), 2).stops
    assert not forecast(quorum, answers(3), 3).stops
    assert not forecast(quorum, [], 0).stops  # nobody knows yet how many there will be
    krum = config_of("aggregation: {rule: krum, faulty_sites: 1}")
    assert "needs 4 sites" in forecast(krum, answers(3), 3).stops[0]
    assert not forecast(krum, answers(4), 4).stops


def test_a_configuration_that_no_run_could_follow_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="selection"):
        forecast(config_of("evaluation: {count_noise: 1.0}"), [], 2)


def test_a_forecast_is_plain_json() -> None:
    plan = forecast(config_of(), [yes("north", patients=120), no("west", RefusalReason.TASK)], 2)
    content = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert content["sites"][1]["refuses"] == RefusalReason.TASK.value
    assert content["traffic"]["to_site"] == plan.traffic.to_site
