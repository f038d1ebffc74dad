from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.coordinators import Front, front
from tests.client.policies import run_of
from tests.client.terminals import Site, started


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("coordinator")) as found:
        yield found


def test_a_run_is_shown_in_plain_words_and_approved_by_its_name(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    listed = site.types("runs").out
    assert re.search(
        r"breast-1 +breast \w{8} +waits for you .* wardround-site approve breast-1", listed
    )
    ended = site.types("approve", "breast-1", answer="y\n")
    assert ended.status == 0
    for said in (
        "diagnosis: predicts malignant",
        "2-D images, 16 x 16; columns age, sex, part, scanner",
        "small_cnn, 2 rounds of 1 step with 16 patients each",
        "by patient, epsilon 2 at delta 1e-05 for the whole run",
        "nothing that measures the model: evaluation.count_noise is 0",
        "costs     epsilon 2 at delta 1e-05: training patients",
        "budget    of epsilon 8 at delta 1e-05 for all runs, 8 is left; after this run 6",
        run_of().in_force().fingerprint(),
        "Approve this configuration? [y/N]",
    ):
        assert said in ended.out
    assert site.decision(run_of()) == "approved"
    assert "approved" in site.types("runs").out


@pytest.mark.parametrize("answer", ["n\n", "\n", "what?\n"])
def test_no_answer_but_yes_approves(site: Site, answer: str) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    assert "Nothing was changed" in site.types("approve", "breast-1", answer=answer).out
    assert site.decision(run_of()) == "waiting"


def test_where_nobody_can_answer_nothing_is_changed_and_the_option_is_named(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    ended = site.types("approve", "breast-1")
    assert (ended.status, "Give --yes" in ended.err) == (2, True)
    assert site.decision(run_of()) == "waiting"
    assert site.types("approve", "breast-1", "--yes").status == 0
    assert site.decision(run_of()) == "approved"


def test_a_changed_run_shows_what_changed_before_it_asks(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    site.types("approve", "breast-1", "--yes")
    site.asked("breast-2", run_of(privacy={"epsilon": 2.75}))
    ended = site.types("approve", "breast-2", answer="n\n")
    assert "Changed since it was approved last:\n  privacy.epsilon: 2.0 -> 2.75" in ended.out
    assert "  privacy.epsilon" not in site.types("approve", "breast-1", "--yes").out


def test_a_run_that_asks_with_another_configuration_is_meant_as_it_asked_last(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    changed = run_of(training={"rounds": 9})
    site.asked("breast-1", changed)
    site.types("approve", "breast-1", "--yes")
    assert site.decision(changed) == "approved"
    assert site.decision(run_of()) == "waiting"


def test_an_approval_is_taken_back(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    site.types("approve", "breast-1", "--yes")
    assert "Refused" in site.types("refuse", "breast-1", "--yes").out
    assert site.decision(run_of()) == "declined"
    assert "nothing was changed" in site.types("refuse", "breast-1", "--yes").out


def test_a_run_is_found_by_its_file_and_by_its_hash(site: Site, tmp_path: Path) -> None:
    site.set_up()
    path = tmp_path / "run.yaml"
    path.write_text(run_of().to_yaml())
    assert site.types("approve", path, "--yes").status == 0
    own = run_of().in_force().fingerprint()
    assert site.types("refuse", own[:12], "--yes").status == 0
    assert site.decision(run_of()) == "declined"


@pytest.mark.processes
def test_what_the_policy_will_refuse_anyway_is_said_beside_the_question(
    site: Site, coordinator: Front
) -> None:
    site.types("join", coordinator.invite("fifth"), "--data", site.data)
    site.asked("breast-1", run_of(privacy="none"))
    ended = site.types("approve", "breast-1", answer="n\n")
    assert "NONE: updates leave without noise" in ended.out
    assert "Against this site's policy" in ended.out
    assert "policy.private_only is true" in ended.out


HOSTILE = "fine\x1b[2K\x1b[1A\rApproved\n  privacy  none needed \u202eevil\x07"


def test_what_a_coordinator_wrote_cannot_act_on_the_terminal(site: Site) -> None:
    site.set_up()
    site.asked(f"run{HOSTILE}", run_of(description=HOSTILE, task={"target": HOSTILE}))
    site.asked("run-2", run_of(description=HOSTILE, task={"target": HOSTILE}))
    for words in (("runs",), ("runs", "run-2"), ("approve", "run-2", "--yes")):
        out = site.types(*words).out
        assert not any(c in out for c in "\x1b\r\x07\u202e")
        assert not re.search(r"^  privacy +none needed", out, re.MULTILINE)


@pytest.mark.processes
def test_ctrl_c_at_a_question_ends_with_130_one_line_and_no_answer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.set_up()
    site.asked("breast-1", run_of())
    process = started(["approve", "breast-1", "--home", str(site.home.folder)])
    assert process.stdout is not None
    text = ""
    while "[y/N]" not in text:
        text += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip().count("\n") == 0
    assert "Interrupted" in err
    assert site.decision(run_of()) == "waiting"
