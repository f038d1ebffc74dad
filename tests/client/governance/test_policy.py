from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort.loading import needed_columns
from client.governance import policy
from client.governance.policy import Denied, PolicyRules, columns_of, judge, judge_metrics
from common.config.run_config import RunConfig, load_config
from common.messages.wire import RefusalReason
from common.tasks import task_of
from tests.client.policies import COORDINATOR, rules_of, run_of

SHIPPED = Path(__file__).parents[3] / "configs" / "simulations"
PROGNOSIS = {
    "kind": "prognosis",
    "event": "died",
    "time": "months",
    "intervals": [1.0, 2.0],
    "outcome": "survival",
}


def reason_of(config: RunConfig, rules: PolicyRules, site: str = "") -> RefusalReason | None:
    denied = judge(config, rules, COORDINATOR, site)
    return None if denied is None else denied.reason


FILES = {"images": {"size": [16, 16], "format": "files"}}


def prognosis() -> RunConfig:
    content = run_of().model_dump(mode="json") | {"task": PROGNOSIS}
    return RunConfig.model_validate(content)


def test_a_private_run_within_the_limits_is_allowed_as_a_site_is_set_up() -> None:
    assert reason_of(run_of(), PolicyRules()) is None


def test_a_site_as_it_is_set_up_asks_a_person_and_takes_private_runs_only() -> None:
    rules = PolicyRules()
    assert (rules.approval, rules.private_only) == ("manual", True)
    assert (rules.largest_epsilon_per_run, rules.largest_epsilon_per_cohort) == (3.0, 8.0)
    assert (rules.smallest_cell, rules.smallest_cohort) == (5, 10)


@pytest.mark.parametrize(
    ("config", "rules", "reason"),
    [
        (run_of(), {"coordinators": ["cd" * 32]}, "COORDINATOR"),
        (run_of(), {"coordinators": []}, "COORDINATOR"),
        (run_of(), {"tasks": ["segmentation"]}, "TASK"),
        (run_of(), {"targets": ["benign"]}, "TARGET"),
        (run_of(), {"targets": []}, "TARGET"),
        (prognosis(), {"targets": ["died"]}, "TARGET"),
        (run_of(), {"columns": []}, "COLUMNS"),
        (run_of(), {"columns": ["age", "sex", "part"]}, "COLUMNS"),
        (run_of(), {"columns": ["age", "sex", "scanner"]}, "COLUMNS"),
        (run_of(), {"columns": ["age", "part", "scanner"]}, "COLUMNS"),
        (run_of(), {"columns": ["sex", "part", "scanner"]}, "COLUMNS"),
        (run_of(), {"networks": ["resnet18"]}, "NETWORK"),
        (
            run_of(privacy={"model": {"network": "resnet18"}}),
            {"networks": ["small_cnn"]},
            "NETWORK",
        ),
        (run_of(cohort=FILES), {}, "FILES"),
        (run_of(privacy="none"), {}, "PRIVACY"),
        (run_of(privacy={"epsilon": 3.1}), {}, "EPSILON"),
        (run_of(privacy={"delta": 0.5}), {}, "EPSILON"),
        # delta may be 0.1 / 9
        (run_of(cohort={"smallest_cohort": 9}, privacy={"delta": "per_site"}), {}, "EPSILON"),
        (run_of(cohort={"smallest_cohort": 9}), {}, "COHORT"),
        (run_of(cohort={"smallest_cohort": 19}), {"smallest_cohort": 20}, "COHORT"),
        (run_of(evaluation={"smallest_cell": 4}), {}, "CELL"),
        (run_of(privacy={"default_patients": "declared"}), {}, "METRICS"),
        (run_of(privacy={"default_patients": "declared"}), {"tell_patients": False}, "METRICS"),
        (
            run_of(privacy={"public_patients": {"b": 20}, "default_patients": "declared"}),
            {},
            "METRICS",
        ),
        (run_of(privacy={"default_patients": None}), {"tell_patients": True}, "CONFIGURATION"),
        (
            run_of(privacy={"public_patients": {"b": 20}, "default_patients": None}),
            {"tell_patients": True},
            "CONFIGURATION",
        ),
    ],
)
def test_what_a_rule_does_not_allow_is_refused_with_the_rules_own_reason(
    config: RunConfig, rules: dict[str, object], reason: str
) -> None:
    assert reason_of(config, rules_of(**rules), "a") is RefusalReason[reason]


@pytest.mark.parametrize(
    ("config", "rules"),
    [
        (run_of(), {"coordinators": [COORDINATOR]}),
        (run_of(), {"coordinators": [":".join(["AB"] * 32)]}),
        (run_of(), {"tasks": ["segmentation", "diagnosis"]}),
        (run_of(), {"targets": ["malignant"]}),
        (prognosis(), {"targets": ["died", "months"]}),
        (run_of(), {"columns": ["age", "sex", "part", "scanner"]}),
        (run_of(), {"networks": ["small_cnn"]}),
        (run_of(cohort=FILES), {"allow_files": True}),
        (run_of(privacy={"model": {"network": "resnet18"}}), {"networks": ["resnet18"]}),
        (run_of(privacy="none"), {"private_only": False}),
        (run_of(privacy={"epsilon": 3.0}), {}),
        (run_of(privacy={"delta": 0.01}), {}),
        (
            run_of(privacy={"public_patients": {"a": 20}, "default_patients": "declared"}),
            {"tell_patients": False},
        ),
        (run_of(), {"tell_patients": False}),
        (run_of(privacy={"default_patients": "declared"}), {"tell_patients": True}),
        (run_of(privacy="none"), {"private_only": False, "tell_patients": False}),
    ],
)
def test_what_a_rule_names_is_allowed(config: RunConfig, rules: dict[str, object]) -> None:
    assert reason_of(config, rules_of(**rules), "a") is None


def test_a_coordinator_is_told_by_its_certificate_however_the_hash_is_written() -> None:
    rules = rules_of(coordinators=[COORDINATOR])
    denied = judge(run_of(), rules, "cd" * 32)
    assert denied is not None
    assert denied.reason is RefusalReason.COORDINATOR
    assert judge(run_of(), rules, ":".join(["AB"] * 32)) is None
    assert judge(run_of(), PolicyRules(), "cd" * 32) is None


def test_what_a_run_says_and_what_is_trained_are_judged_alike() -> None:
    overruled = run_of(privacy={"model": {"network": "resnet18"}})
    for rules in (rules_of(networks=["resnet18"]), rules_of(networks=["small_cnn"])):
        assert judge(overruled, rules, COORDINATOR) == judge(
            overruled.in_force(), rules, COORDINATOR
        )


def test_the_detail_says_which_rule_and_what_was_asked() -> None:
    denied = judge(run_of(privacy={"epsilon": 5.5}), PolicyRules(), COORDINATOR)
    assert denied is not None
    assert "5.5 is above policy.largest_epsilon_per_run 3" in denied.detail


@pytest.mark.parametrize(
    ("privacy", "metrics", "noise", "refused"),
    [
        ("none", "any", 0.0, False),
        ("none", "any", 3.0, False),
        ("none", "noised", 0.0, True),
        ("none", "noised", 3.0, False),
        ("none", "none", 0.0, True),
        ("none", "none", 3.0, True),
        ({}, "any", 0.0, True),
        ({}, "any", 3.0, False),
        ({}, "noised", 0.0, True),
        ({}, "noised", 3.0, False),
        ({}, "none", 3.0, True),
    ],
)
def test_counts_leave_as_the_policy_says_and_of_private_runs_with_noise_alone(
    privacy: object,
    metrics: str,
    noise: float,
    refused: bool,  # noqa: FBT001
) -> None:
    config = run_of(evaluation={"count_noise": noise}, privacy=privacy)
    denied = judge_metrics(config, rules_of(metrics=metrics))
    assert (denied is not None) is refused
    assert denied is None or denied.reason is RefusalReason.METRICS


# --- what must hold of any rules -------------------------------------------------------------

NAMES = st.lists(st.sampled_from(["malignant", "age", "sex", "part", "scanner"]), unique=True)
RULES = st.fixed_dictionaries(
    {
        "private_only": st.booleans(),
        "tell_patients": st.sampled_from([True, False, "without_privacy"]),
        "largest_epsilon_per_run": st.floats(0.1, 10),
        "largest_delta": st.floats(1e-6, 0.1),
        "smallest_cohort": st.integers(1, 40),
        "smallest_cell": st.integers(1, 20),
        "tasks": st.sampled_from(["any", ["diagnosis"], ["prognosis"], []]),
        "targets": st.one_of(st.just("any"), NAMES),
        "columns": st.one_of(st.just("any"), NAMES),
        "networks": st.sampled_from(["any", ["small_cnn"], ["resnet18", "small_cnn"], []]),
    }
)
RUNS = st.builds(
    lambda epsilon, cohort, cell, private, patients: run_of(
        privacy={"epsilon": epsilon, "default_patients": patients} if private else "none",
        cohort={"smallest_cohort": cohort},
        evaluation={"smallest_cell": cell},
    ),
    st.floats(0.1, 10),
    st.integers(1, 40),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([20, "declared"]),
)


def within(config: RunConfig, rules: PolicyRules) -> bool:
    """Return what a person who reads the rules out would say: the slow twin of `judge`."""

    def fits(names: set[str], allowed: tuple[str, ...] | str) -> bool:
        return allowed == "any" or names <= set(allowed)

    privacy = config.privacy
    return all(
        (
            rules.smallest_cohort <= config.cohort.smallest_cohort,
            rules.smallest_cell <= config.evaluation.smallest_cell,
            fits({"diagnosis"}, rules.tasks),
            fits({"malignant"}, rules.targets),
            fits({"age", "sex", "part", "scanner"}, rules.columns),
            fits({"small_cnn"}, rules.networks),
            not rules.private_only
            if privacy == "none"
            else privacy.epsilon <= rules.largest_epsilon_per_run
            and rules.largest_delta >= 1e-5
            and (privacy.default_patients == 20 or rules.tell_patients is True),
        )
    )


@given(RULES, RUNS)
def test_a_run_is_refused_exactly_when_one_of_the_rules_is_broken(
    given_rules: dict[str, object], config: RunConfig
) -> None:
    rules = rules_of(**given_rules)
    assert (judge(config, rules, COORDINATOR) is None) is within(config, rules)


@given(RULES, RUNS)
def test_stricter_rules_never_allow_what_laxer_ones_refuse(
    given_rules: dict[str, object], config: RunConfig
) -> None:
    rules = rules_of(**given_rules)
    if judge(config, rules, COORDINATOR) is None:
        return
    stricter: list[dict[str, object]] = [
        {"private_only": True},
        {"tell_patients": False},
        {"tasks": []},
        {"targets": []},
        {"largest_epsilon_per_run": rules.largest_epsilon_per_run / 2},
        {"largest_delta": rules.largest_delta / 2},
        {"columns": []},
        {"networks": []},
        {"smallest_cohort": rules.smallest_cohort + 1},
        {"smallest_cell": rules.smallest_cell + 1},
    ]
    for change in stricter:
        assert judge(config, rules_of(**given_rules | change), COORDINATOR) is not None


def test_what_the_coordinator_sees_is_one_of_few_reasons_and_no_patient_is_asked() -> None:
    """A judgement takes no data: no argument, no file and no clock that could carry any."""
    assert list(inspect.signature(judge).parameters) == [
        "config",
        "rules",
        "coordinator_fingerprint",
        "site",
    ]
    reads: list[Callable[..., object]] = [judge, judge_metrics]
    for function in reads:
        assert not {"open", "read_text", "now"} & set(function.__code__.co_names)
    reading = {"Path", "open", "client.cohort.loading", "client.labels.label_table"}
    assert not reading & set(vars(policy))
    assert set(Denied.__dataclass_fields__) == {"reason", "detail"}


def test_every_column_that_a_run_reads_is_one_that_the_policy_is_asked_for() -> None:
    """Also the column of sides, by which images are turned."""
    content = run_of().model_dump(mode="json")
    content["cohort"]["images"] = {"size": [16, 16], "laterality_column": "side"}
    sided = RunConfig.model_validate(content)
    assert "side" in columns_of(sided)
    shipped = [load_config(path) for path in sorted(SHIPPED.glob("*.yaml"))]
    for config in (sided, run_of(), prognosis(), *shipped):
        asked = {*config.task.outcome_columns, *columns_of(config)}
        assert asked == set(needed_columns(config, task_of(config.task)))
