"""A coordinator that would read patients out of evaluation: each attempt comes to nothing.

It ends refused, identical, or with the noise that was charged. RequestHandler, daemon's admission
and ledger are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.governance.approvals import Approvals
from client.governance.request_admission import AdmissionContext, denied, question_of
from client.inference.calibration.trained_on import trained_on
from client.node.request_handler import RequestHandler, load
from client.node.worker import site_context
from client.privacy.ledger import Ledger
from client.site.home import Home
from client.site.policy_section import PolicyRules
from client.site.site_config import SiteConfig, load_site_config, write_site_config
from client.training import evaluation
from client.training.evaluation import site_statistics
from client.training.local_model import LocalModel, open_local_model
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.data.weights import Weights
from common.messages.signed_envelope import seal
from common.messages.wire import (
    Answer,
    EvaluationRequest,
    Proposal,
    Refusal,
    RefusalReason,
    SiteReport,
    SiteUpdate,
    StatisticsRequest,
    TrainRequest,
)
from common.metrics.statistics import Statistics, count_sensitivity, with_count_noise
from common.models.run_network import initial_weights
from common.platform.code_hash import bundle_hash
from common.privacy.accounting import epsilon_of
from common.privacy.noise import ChaChaNoise
from common.privacy.plan import count_mechanism
from simulations.comparison.privacy_audit import epsilon_at_least
from tests.privacy.made_up import patients_of, without

PATIENTS, RARE, NOISE = 80, 17, 4.0
CONFIG = parse_config("""
name: attacked
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: rare}, {column: crp}]}, split: {test_fraction: 0.5}}
model: {network: table}
training: {rounds: 3, batch_patients: all, optimizer: sgd, learning_rate: 0.1}
evaluation: {count_noise: 4.0}
privacy: {unit: patient, epsilon: 2.0, delta: 0.001, default_patients: 30}
""").in_force()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return attacked_home(tmp_path)


def attacked_home(tmp_path: Path) -> Home:
    """Return a site of 80 patients, one of whom has a rare finding."""
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"P{n},{int(n == RARE)},{3 + n},{n % 2}\n" for n in range(PATIENTS))
    (data / "labels.csv").write_text(f"PatientID,rare,crp,ill\n{rows}", encoding="utf-8")
    found = Home(tmp_path / "home")
    write_site_config(found.site_yaml, SiteConfig(name="north", data=data, policy=PolicyRules()))
    return found


def desk_of(home: Home) -> RequestHandler:
    return RequestHandler(site_context(home, load_site_config(home.site_yaml)), lambda _text: None)


def crafted(rare: float = 0.0, crp: float = 0.0, bias: float = 0.0) -> Weights:
    """Return weights that look at one column alone."""
    found = initial_weights(CONFIG, 0)
    width = found["head.0.weight"].shape[1]
    row = torch.zeros(1, width)
    row[0, 0], row[0, 1] = rare, crp
    return {"head.0.weight": row, "head.0.bias": torch.tensor([bias])}


def asked(
    weights: Weights | None = None,
    config: RunConfig = CONFIG,
    run: str = "run",
    seed: int = 0,
    number: int = 3,
    split: str = "test",
) -> EvaluationRequest:
    return EvaluationRequest(
        run=run,
        round=number,
        seed=seed,
        config=config,
        weights=weights or crafted(rare=1e3),
        split="test" if split == "test" else "validation",
    )


def reason_of(answer: Answer) -> RefusalReason:
    assert isinstance(answer, Refusal), answer
    return answer.reason


def true_counts(home: Home, request: EvaluationRequest) -> Statistics:
    """Return what the site would count, which never leaves."""
    loaded = load(
        site_context(home, load_site_config(home.site_yaml)), request.config, request.seed
    )
    loaded.local_model.load(request.weights)
    return site_statistics(loaded.local_model, loaded.site.test)


def check_noised(home: Home) -> None:
    """Raise unless crafted weights that single one patient out get charged noise alone."""
    request = asked(crafted(rare=1e3, bias=-500.0))
    answer, true = desk_of(home).answer(request), true_counts(home, request)
    if not isinstance(answer, SiteReport):
        raise AssertionError(answer)  # noqa: TRY004 - a check, not a type error
    off = answer.statistics.cells["histogram"] - true.cells["histogram"]
    if not (np.abs(off).min() > 0 and 0.5 * NOISE < off.std() < 1.6 * NOISE):
        message = f"counts are off by {off.std()}, expected noise of {NOISE}"
        raise AssertionError(message)
    if answer.statistics.sums:
        message = f"sums leave: {', '.join(answer.statistics.sums)}"
        raise AssertionError(message)
    charged = Ledger(home.ledger).history("patients")
    if [m.noise_multiplier for m in charged] != [NOISE] or answer.spend is None:
        message = f"charged was {charged}"
        raise AssertionError(message)


def check_once(home: Home) -> None:
    """Raise unless other weights for a round that was answered are refused."""
    handler = desk_of(home)
    first = handler.answer(asked(crafted(crp=0.1)))
    second = handler.answer(asked(crafted(crp=0.1, bias=1e-6)))
    if not isinstance(first, SiteReport) or not isinstance(second, Refusal):
        message = f"two answers for one round: {second}"
        raise AssertionError(message)  # noqa: TRY004 - a check, not a type error


def test_rounds_that_are_asked_for_again_are_charged_and_told_until_the_budget_ends_it(
    home: Home,
) -> None:
    handler, charged = desk_of(home), 0
    limit = load_site_config(home.site_yaml).policy.largest_epsilon_per_cohort
    for place in range(40):
        answer = handler.answer(
            TrainRequest(
                run="run",
                round=1 + place % 3,
                seed=0,
                config=CONFIG,
                weights=crafted(crp=float(place)),
            )
        )
        if not isinstance(answer, SiteUpdate):
            break
        charged += 1
        history = Ledger(home.ledger).history("patients")
        assert len(history) == charged
        assert answer.spend is not None
        assert answer.spend.run_epsilon == pytest.approx(epsilon_of(history, 1e-3))
        assert answer.spend.cohort_epsilon <= limit
    assert reason_of(answer) is RefusalReason.BUDGET
    assert charged > 3


def test_weights_that_isolate_the_only_patient_with_a_finding_get_charged_noise(home: Home) -> None:
    check_noised(home)


def test_two_requests_cannot_be_subtracted(home: Home) -> None:
    check_once(home)


def test_of_200_weight_sets_for_one_round_one_is_answered_and_charged(home: Home) -> None:
    handler = desk_of(home)
    answers = [handler.answer(asked(crafted(crp=n / 100))) for n in range(200)]
    assert [isinstance(a, SiteReport) for a in answers] == [True, *[False] * 199]
    assert {reason_of(a) for a in answers[1:]} == {RefusalReason.ANSWERED}
    assert Ledger(home.ledger).head().charges == 1


def test_other_seeds_of_a_run_are_refused(home: Home) -> None:
    handler = desk_of(home)
    answers = [handler.answer(asked(seed=seed)) for seed in range(12)]
    assert isinstance(answers[0], SiteReport)
    assert {reason_of(a) for a in answers[1:]} == {RefusalReason.BEGUN}
    changed = CONFIG.model_copy(update={"description": "another"})
    assert reason_of(handler.answer(asked(config=changed))) is RefusalReason.BEGUN
    # Also of a process that was started anew, and for what else the run asks.
    for request in (
        asked(seed=2**70),
        StatisticsRequest(run="run", round=0, seed=1, config=CONFIG),
    ):
        assert reason_of(desk_of(home).answer(request)) is RefusalReason.BEGUN


def lost(home: Home, copy: bytes | None = None) -> None:
    """Lose answers.db, or put an older copy in its place."""
    home.answers.unlink()
    if copy is not None:
        home.answers.write_bytes(copy)


def others() -> dict[str, EvaluationRequest]:
    """Return requests that would put patients of the run's name into other parts."""
    split = CONFIG.cohort.split.model_copy(update={"test_fraction": 0.25})
    fractions = CONFIG.model_copy(
        update={"cohort": CONFIG.cohort.model_copy(update={"split": split})}
    )
    changed = CONFIG.model_copy(update={"description": "another"})
    return {
        "seed": asked(seed=1),
        "fractions": asked(config=fractions),
        "configuration": asked(config=changed),
    }


def check_ledger_alone(home: Home, request: EvaluationRequest, *, older: bool) -> None:
    """Raise unless a run's name keeps what it was charged for after answers.db is lost."""
    desk_of(home).answer(asked(run="before"))
    copy = home.answers.read_bytes() if older else None
    desk_of(home).answer(asked())
    lost(home, copy)
    proposal = Proposal(run="run", round=0, seed=request.seed, config=request.config)
    for one in (proposal, request):
        answer = desk_of(home).answer(one)
        if not isinstance(answer, Refusal) or answer.reason is not RefusalReason.BEGUN:
            message = f"another run was answered under the name: {answer}"
            raise AssertionError(message)
    assert Ledger(home.ledger).head().charges == 2


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("other", ["seed", "fractions", "configuration"])
def test_without_answers_db_the_ledger_alone_keeps_a_runs_name(
    home: Home,
    other: str,
    older: bool,  # noqa: FBT001 - both are tried
) -> None:
    check_ledger_alone(home, others()[other], older=older)


@pytest.mark.parametrize("older", [False, True])
def test_what_is_asked_again_without_answers_db_is_charged_again(
    home: Home,
    older: bool,  # noqa: FBT001 - both are tried
) -> None:
    desk_of(home).answer(asked(run="before"))
    copy = home.answers.read_bytes() if older else None
    first = desk_of(home).answer(asked())
    lost(home, copy)
    second = desk_of(home).answer(asked(crafted(crp=0.5)))
    assert isinstance(first, SiteReport)
    assert isinstance(second, SiteReport)
    assert first.spend is not None
    assert second.spend is not None
    once = count_mechanism(1.0, NOISE)
    assert second.spend.run_epsilon == pytest.approx(epsilon_of([once] * 2, 0.001))
    assert second.spend.cohort_epsilon == pytest.approx(epsilon_of([once] * 3, 1e-5))


def test_another_key_of_the_split_ends_a_run_that_was_charged(home: Home) -> None:
    assert isinstance(desk_of(home).answer(asked()), SiteReport)
    home.identity_key.unlink()
    home.records.unlink()
    home.disclosures.unlink(missing_ok=True)
    lost(home)
    assert reason_of(desk_of(home).answer(asked(number=3, split="test"))) is RefusalReason.BEGUN


def admission(home: Home) -> AdmissionContext:
    return AdmissionContext(
        config=load_site_config(home.site_yaml),
        coordinator="ca",
        paused=home.paused,
        approvals=Approvals(home.approvals),
    )


@pytest.mark.parametrize("ahead", [False, True])
def test_an_approval_is_of_one_seed(home: Home, ahead: bool) -> None:  # noqa: FBT001
    def refused(request: Proposal | EvaluationRequest) -> RefusalReason | None:
        question = question_of(seal(request).header)
        found = denied(question, bundle_hash(), admission(home), datetime.now().astimezone())
        return None if found is None else found.reason

    first = Proposal(run="first", round=0, seed=5, config=CONFIG)
    assert refused(first) is RefusalReason.NOT_APPROVED
    Approvals(home.approvals).decide_ahead(CONFIG, "approved", None if ahead else 5)
    assert refused(first) is None
    assert refused(asked(run="first", seed=5)) is None
    others = [asked(run=f"run-{seed}", seed=seed) for seed in range(12) if seed != 5]
    assert {refused(request) for request in others} == {RefusalReason.NOT_APPROVED}
    assert refused(asked(run="again", seed=5)) is None


def test_other_run_names_are_charged_until_the_budget_ends_it(home: Home) -> None:
    handler = desk_of(home)
    answers = [handler.answer(asked(run=f"run-{n}")) for n in range(200)]
    told = [a for a in answers if isinstance(a, SiteReport)]
    assert 0 < len(told) < 60
    assert {reason_of(a) for a in answers[len(told) :]} == {RefusalReason.BUDGET}
    charged = Ledger(home.ledger).history("patients")
    limit = load_site_config(home.site_yaml).policy.largest_epsilon_per_cohort
    assert len(charged) == len(told)
    assert epsilon_of(charged, 1e-5) <= limit


def test_a_repetition_gets_the_same_bytes_and_costs_nothing(home: Home) -> None:
    answers = [desk_of(home).answer(asked()) for _ in range(3)]
    assert len({seal(answer).digest for answer in answers}) == 1
    assert isinstance(answers[0], SiteReport)
    assert Ledger(home.ledger).head().charges == 1


def test_rounds_and_splits_that_are_not_measured_are_refused(home: Home) -> None:
    handler = desk_of(home)
    places = [(n, s) for n in range(9) for s in ("validation", "test") if (n, s) != (3, "test")]
    answers = [handler.answer(asked(number=n, split=split)) for n, split in places]
    assert {reason_of(a) for a in answers} == {RefusalReason.METRICS}
    assert Ledger(home.ledger).head().charges == 0


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        (0.0, RefusalReason.METRICS),
        (1e-9, RefusalReason.BUDGET),
        (1e-300, RefusalReason.BUDGET),
        (5e-324, RefusalReason.BUDGET),
        (0.01, RefusalReason.BUDGET),
    ],
)
def test_noise_that_hides_nothing_is_refused(
    home: Home, noise: float, reason: RefusalReason
) -> None:
    rules = CONFIG.evaluation.model_copy(update={"count_noise": noise})
    config = CONFIG.model_copy(update={"evaluation": rules})
    assert reason_of(desk_of(home).answer(asked(config=config))) is reason
    assert Ledger(home.ledger).head().charges == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "image"},
        {"smallest_cell": 1},
        {"smallest_cell": 10_000},
        {"specificity": 0.999},
        {"average": "sites"},
        {"count_noise": 1e6},
    ],
)
def test_no_rule_of_evaluation_changes_what_is_charged_or_refused(
    home: Home, changes: dict[str, object]
) -> None:
    rules = CONFIG.evaluation.model_copy(update=changes)
    config = CONFIG.model_copy(update={"evaluation": rules})
    answer = desk_of(home).answer(asked(config=config))
    assert isinstance(answer, SiteReport)
    assert not answer.statistics.sums
    assert [m.noise_multiplier for m in Ledger(home.ledger).history("patients")] == [
        rules.count_noise
    ]


@pytest.mark.parametrize("patients", [11, 30])
def test_nobody_or_few_in_the_split_are_answered_like_many(home: Home, patients: int) -> None:
    labels = load_site_config(home.site_yaml).labels_csv
    rows = "".join(f"P{n},0,{n},{n % 2}\n" for n in range(patients))
    labels.write_text(f"PatientID,rare,crp,ill\n{rows}", encoding="utf-8")
    few = CONFIG.cohort.split.model_copy(update={"test_fraction": 0.01})
    config = CONFIG.model_copy(update={"cohort": CONFIG.cohort.model_copy(update={"split": few})})
    answer = desk_of(home).answer(asked(config=config))
    assert isinstance(answer, SiteReport)
    assert answer.statistics.cells["histogram"].shape == (1, 17)


def test_a_private_run_is_told_nothing_of_the_cohort_without_noise(home: Home) -> None:
    request = StatisticsRequest(run="run", round=0, seed=0, config=CONFIG)
    assert reason_of(desk_of(home).answer(request)) is RefusalReason.STATISTICS
    assert Ledger(home.ledger).head().charges == 0


# --- what one patient can move, whatever the weights ---------------------------------------------


def made(kind: str, unit: str) -> tuple[LocalModel, Patients]:
    """Return a network and patients with several images each."""
    network = "{network: small_cnn, width: 4}" if kind == "images" else "{network: table}"
    seen = (
        "images: {size: [16, 16]}"
        if kind == "images"
        else ("table: {numbers: [{column: a}, {column: b}, {column: c}, {column: d}]}")
    )
    config = parse_config(f"""
name: moved
task: {{kind: diagnosis, target: ill}}
cohort: {{{seen}}}
model: {network}
training: {{rounds: 1}}
evaluation: {{count_noise: 2.0, unit: {unit}}}
privacy: none
""")
    patients = patients_of((1, 3, 2, 5, 1, 2) * 4, (1, 16, 16) if kind == "images" else (0,))
    if kind != "images":
        wide = torch.cat([patients.table, patients.table], 1)
        expected = config.cohort.table
        width = 0 if expected is None else expected.width
        patients = replace(patients, table=wide[:, :width])
    else:
        patients = replace(patients, table=torch.zeros(len(patients.patient), 0))
    return open_local_model(config, 0), patients


@pytest.mark.parametrize("kind", ["table", "images"])
@pytest.mark.parametrize("unit", ["patient", "image"])
@settings(max_examples=25)
@given(
    scale=st.sampled_from([1.0, 1e3, 1e6, 1e9, 1e30, float("inf"), float("nan")]),
    left_out=st.integers(0, 23),
    seed=st.integers(0, 50),
)
def test_one_patient_moves_the_counts_by_what_is_charged_whatever_the_weights(
    kind: str, unit: str, scale: float, left_out: int, seed: int
) -> None:
    local_model, patients = made(kind, unit)
    draw = torch.Generator().manual_seed(seed)
    for value in local_model.trained.values():
        value.copy_(scale * torch.randn(value.shape, generator=draw))
    with_them = site_statistics(local_model, patients)
    fewer = site_statistics(local_model, without(patients, left_out))
    moved = [(with_them.cells[n] - fewer.cells[n]).ravel() for n in with_them.cells]
    assert float(np.linalg.norm(np.concatenate(moved))) <= count_sensitivity(with_them) + 1e-9


def check_apart() -> None:
    """Raise unless a patient's score has the same bits whoever else is there."""
    columns = ", ".join(f"{{column: c{n}}}" for n in range(50))
    config = parse_config(f"""
name: apart
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{columns}]}}}}
model: {{network: table}}
training: {{rounds: 1}}
evaluation: {{count_noise: 2.0}}
privacy: none
""")
    local_model, patients = open_local_model(config, 0), patients_of((1,) * 40, (0,))
    draw = torch.Generator().manual_seed(0)
    wide = torch.randn((40, 100), generator=draw)
    for value in local_model.trained.values():
        value.copy_(torch.randn(value.shape, generator=draw))
    everybody = evaluation.scores_apart(local_model, replace(patients, table=wide)).prediction
    for left_out in (0, 7, 20, 39):
        fewer = without(replace(patients, table=wide), left_out)
        stay = torch.arange(40) != left_out
        if not torch.equal(evaluation.scores_apart(local_model, fewer).prediction, everybody[stay]):
            message = f"without patient {left_out} others have other scores"
            raise AssertionError(message)


def test_a_patients_score_has_the_same_bits_whoever_else_is_there() -> None:
    """Crafted weights make last bits large: 1e9 x (score - 0.5) is another bin."""
    check_apart()


# --- audited -------------------------------------------------------------------------------------


def audited(release: Callable[[Statistics], Statistics], games: int = 1000) -> float:
    """Return the epsilon that guessing whether one patient is in the counts shows for certain."""
    coins = np.random.default_rng(0).random(games) < 0.5
    right = 0
    for coin in coins:
        cells = np.zeros((1, 17))
        cells[0, 10] = float(coin)
        told = release(Statistics(patients=np.zeros(()), cells={"histogram": cells}, sums={}))
        right += (told.cells["histogram"][0, 10] > 0.5) == coin
    return epsilon_at_least(int(right), games, 1e-5)


def test_what_is_released_stays_below_the_claim_and_without_noise_exceeds_it() -> None:
    claim = epsilon_of([count_mechanism(1.0, NOISE)], 1e-5)
    noise = ChaChaNoise()
    assert audited(lambda counts: with_count_noise(counts, NOISE, noise)) < claim
    assert audited(lambda counts: with_count_noise(counts, NOISE / 40, noise)) > claim
    assert audited(lambda counts: counts) > claim


def test_answers_that_were_forgotten_are_charged_again_and_never_told_for_free(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.privacy.repeated_answers._MOST_TOLD", 2)
    monkeypatch.setattr("client.privacy.repeated_answers._MOST_RUNS", 2)
    handler = desk_of(home)
    for number in range(4):
        assert isinstance(handler.answer(asked(run=f"run-{number}")), SiteReport)
    assert reason_of(handler.answer(asked(crafted(crp=9.0), run="run-3"))) is RefusalReason.ANSWERED
    assert isinstance(handler.answer(asked(crafted(crp=9.0), run="run-0")), SiteReport)
    assert Ledger(home.ledger).head().charges == 5
    assert reason_of(handler.answer(asked(run="run-1", seed=9))) is RefusalReason.BEGUN


def test_only_who_trains_leaves_a_note_of_whom(home: Home) -> None:
    handler = desk_of(home)
    for seed in range(4):
        handler.answer(Proposal(run="run", round=0, seed=seed, config=CONFIG))
    assert isinstance(handler.answer(asked()), SiteReport)
    assert not home.trained.exists()
    request = TrainRequest(
        run="run", round=1, seed=0, config=CONFIG, weights=initial_weights(CONFIG, 0)
    )
    assert isinstance(handler.answer(request), SiteUpdate)
    assert len(trained_on(home.trained, CONFIG.fingerprint(), 0)) > 10
