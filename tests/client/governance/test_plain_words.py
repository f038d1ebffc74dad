from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.governance.plain_words import described
from client.site.plain_text import ago, shown, size
from common.config.run_config import RunConfig
from tests.client.policies import run_of

START = {"sha256": "ab" * 32, "names": "monai", "source": "a paper", "licence": "CC0"}
SERIES = [
    {"name": "flair", "reference": True, "description": ["flair"]},
    {"name": "t1", "description": ["t1"]},
]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def words(config: RunConfig) -> str:
    return "\n".join(f"{heading}: {text}" for heading, text in described(config))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            run_of(privacy="none"),
            "privacy: NONE: updates leave without noise and may give patients",
        ),
        (run_of(privacy={"delta": 1e-6}), "epsilon 2 at delta 1e-06"),
        (run_of(privacy={"training": {"rounds": 60}}), "60 rounds of 1 step"),
        (run_of(privacy={"model": {"network": "resnet18"}}), "trains: resnet18"),
        (run_of(evaluation={"count_noise": 3.0}), "each with noise of 3 patients"),
        (
            run_of(evaluation={"count_noise": 0.1}),
            "nothing that measures the model: noise of 0.1 patients on counts would cost more",
        ),
        (run_of(exchange={"encoding": "int8"}), "rounded to 8 bits, after the noise"),
        (run_of(training={"batch_patients": "all"}), "with all patients each"),
        (
            run_of(cohort={"images": {"size": [8, 16, 16], "modalities": ["CT"]}}),
            "3-D images of CT",
        ),
        (
            run_of(cohort={"images": {"size": [8, 16, 16], "series": SERIES, "register": "trust"}}),
            "series flair, t1 chosen by rules whatever their frame of reference",
        ),
        (run_of(description="why"), "purpose: why"),
        (
            run_of(model={"network": "resnet18", "start": START, "train": {"last_blocks": 2}}),
            "begins from: a paper (licence: CC0), a file of SHA-256 abab",
        ),
        (run_of(task={"classes": ["benign", "malignant"]}), "malignant (benign or malignant)"),
        (run_of(task={"type": "multilabel", "target": ["a", "b"]}), "predicts a, b"),
    ],
)
def test_what_is_in_force_is_said_in_plain_words(config: RunConfig, said: str) -> None:
    assert said in words(config)


def test_what_is_trained_of_a_network_that_begins_from_a_file_is_said() -> None:
    for train, said in (
        ("all", "; all of it is trained"),
        ("head", "; the head alone is trained"),
        ({"last_blocks": 2}, "; the last 2 blocks and the head are trained"),
    ):
        run = run_of(model={"network": "resnet18", "start": START, "train": train})
        assert said in words(run)


def test_segmentation_and_prognosis_are_said_too() -> None:
    content = run_of().model_dump(mode="json")
    prognosis = {"kind": "prognosis", "event": "died", "time": "months", "intervals": [1.0, 2.0]}
    assert "predicts died, by months" in words(
        RunConfig.model_validate(content | {"task": prognosis})
    )
    cohort = content["cohort"] | {"table": None}
    outline = content | {
        "task": {"kind": "segmentation"},
        "model": {"network": "unet"},
        "cohort": cohort,
    }
    assert "outlines lesion, as in the masks of column mask" in words(
        RunConfig.model_validate(outline)
    )


def test_a_count_of_patients_that_leaves_is_said_and_one_that_does_not_is_not() -> None:
    declared = words(run_of(privacy={"default_patients": "declared"}))
    assert "exact number of training patients, not covered by epsilon" in declared
    assert "number of training patients" not in words(run_of())
    assert "number of training patients" not in words(run_of(privacy="none"))


@given(st.text())
def test_shown_text_holds_nothing_that_a_terminal_acts_on_and_keeps_its_length(text: str) -> None:
    found = shown(text)
    assert found.isprintable()
    assert len(found) == len(text)
    assert shown(found) == found


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "less than a minute"),
        (-5, "less than a minute"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (900000, "10 days"),
    ],
)
def test_a_time_is_told_in_the_largest_unit_that_fits(seconds: float, said: str) -> None:
    assert ago((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == said


@pytest.mark.parametrize("since", ["", "yesterday", "2026-05-01"])
def test_a_time_that_cannot_be_read_is_unknown(since: str) -> None:
    assert ago(since, NOW) == "unknown"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (7e12, "7000.0 GB")],
)
def test_sizes_are_told_as_people_say_them(count: float, said: str) -> None:
    assert size(count) == said
