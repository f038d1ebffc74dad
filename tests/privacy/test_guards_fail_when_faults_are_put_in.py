"""Each fault that would break the guarantee is put in, and its check must turn red."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.governance.records_check import SiteRecords
from client.privacy import (
    clip_and_noise,
    composition,
    extension_guard,
    isolation,
    model_guard,
    patient_gradients,
)
from client.privacy import ledger as ledger_module
from client.privacy.charge_text import BoundTo
from client.privacy.clip_and_noise import PatientOptimizer
from client.privacy.clipping import clip_factor, patient_norms
from client.privacy.isolation import Isolation
from client.privacy.ledger import COHORT, Ledger, Limit
from client.privacy.ledger_rows import LedgerState
from client.privacy.model_guard import check_model
from client.privacy.private_step import patient_optimizer as optimizer_of
from client.privacy.private_step import private_step
from client.privacy.reachable_state import Reachable
from client.privacy.repeated_answers import AnswersInFile
from client.site.home import Home
from client.training import evaluation, private_round
from common.extensions import global_state, recorded
from common.extensions.global_state import Switches
from common.metrics import agreement
from common.metrics.decisions import confusion
from common.metrics.statistics import Normal, Statistics
from common.models import extension_backbone
from common.platform.errors import BudgetExceeded, LedgerDamaged, PrivacyError, UnsafeModel
from common.privacy import accounting
from common.privacy.noise import ChaChaNoise
from common.privacy.plan import Mechanism
from common.tasks.regression import Regression
from tests.client.cli.test_records import Attack, Federation, cut, restored, swapped, whole_home
from tests.client.cli.test_records import (
    test_a_home_from_before_a_decision_releases_nothing_until_its_people_say_what_holds as check_old_decisions,  # noqa: E501
)
from tests.client.cli.test_records import (
    test_a_home_from_before_a_withdrawal_is_refused_also_without_privacy as check_old_withdrawals,
)
from tests.client.cli.test_records import (
    test_a_lost_ledger_is_charged_back_never_less_and_the_runs_go_on as check_declared,
)
from tests.client.cli.test_records import (
    test_an_old_ledger_is_refused_by_the_next_run_and_the_newest_copy_mends_it as check_old_ledger,
)
from tests.client.cli.test_records import (
    test_another_key_for_identifiers_is_refused_until_it_is_put_back_or_declared as check_key,
)
from tests.client.cli.test_records import (
    test_approvals_or_a_pause_put_back_alone_are_noticed_without_any_witness as check_old_approvals,
)
from tests.client.cli.test_records import (
    test_disclosures_from_before_a_message_are_refused_until_that_is_answered_for as check_old_disclosures,  # noqa: E501
)
from tests.client.privacy.test_composition import BOUND, check_one_name, check_orders
from tests.client.privacy.test_extension_guard import check_memory_of
from tests.client.training.test_private_round import (
    test_no_noise_is_drawn_before_the_round_is_in_the_ledger as check_order,
)
from tests.common.tasks.test_ordinal import check_groups
from tests.common.tasks.test_regression import check_bounded, check_small_counts
from tests.privacy.guarantees import (
    check_bound,
    check_divisor,
    check_fresh,
    check_noise,
    clipped_sum,
    released,
)
from tests.privacy.made_up import (
    COLUMNS,
    ImageNet,
    Silence,
    TableNet,
    charged,
    mechanism_of,
    objective_of,
    patients_of,
    plan_of,
    seeded,
    with_images,
    without,
)
from tests.privacy.remembering import (
    PLACES,
    Memory,
    Remembers,
    after_calls,
    check_gradients_alone,
    check_scores_alone,
    in_evaluation_alone,
)
from tests.privacy.remembering_backbones import REMEMBERED, check_features_alone
from tests.privacy.remembering_records import (
    NORM,
    OFFSET,
    check_class_alone,
    check_constants_held,
    check_loss_alone,
    check_no_kernels,
    check_pixels_alone,
    counts_its_calls,
    knows_the_rows_before,
)
from tests.privacy.test_evaluation_attacks import (
    attacked_home,
    check_apart,
    check_ledger_alone,
    check_noised,
    check_once,
    others,
)

Patch = pytest.MonkeyPatch
RED = AssertionError


def check_sensitivity() -> None:
    """Raise unless a patient with loud images moves the sum by at most the clip norm."""
    patients = patients_of((1, 3, 2))
    loud = with_images(patients, 100 * patients.image, 100 * patients.table)
    objective = objective_of(seeded(TableNet), loud)
    fewer = objective_of(objective.model, without(loud, 1))
    plan = plan_of(mechanism_of(clip_norm=0.1))
    check_bound(float((clipped_sum(objective, plan) - clipped_sum(fewer, plan)).norm()), 0.1)


def check_spread() -> None:
    """Raise unless a release has noise of sigma x C over the divisor."""
    check_noise(released(plan_of(mechanism_of(2.0, divisor=4.0)), ChaChaNoise()), 0.5)


def refuse_network(norm: Callable[[], nn.Module]) -> None:
    """Raise AssertionError when a network with this layer is let through."""
    objective = objective_of(seeded(lambda: ImageNet(norm())), patients_of())
    try:
        check_model(objective, plan_of(), Silence())
    except UnsafeModel:
        return
    raise AssertionError


def check_guard_sees_no_label() -> None:
    """Raise unless the check of a network comes to the same whatever the patients' labels are.

    The weights are made for it: on made-up rows the output is infinite, so that a loss is a number
    for one label and none for the other. Whether the round is refused would tell the label.
    """
    model = nn.Sequential()
    model.head = nn.Linear(COLUMNS, 1)
    rows = made_up_rows()
    with torch.no_grad():
        model.head.weight.copy_(3e38 * rows[:1].sign())
    model.forward = lambda image, table: model.head(table)  # type: ignore[method-assign]  # noqa: ARG005
    found = []
    for label in (0.0, 1.0):
        patients = patients_of((1, 1, 1), image=(0,))
        labelled = replace(patients, target=torch.full_like(patients.target, label))
        try:
            check_model(objective_of(model, labelled), plan_of(), Silence())
        except Exception as error:  # noqa: BLE001 - whatever it is, the coordinator hears of it
            found.append(repr(error)[:40])
        else:
            found.append("")
    if found[0] != found[1]:
        message = f"the check tells labels: {found}"
        raise AssertionError(message)


def made_up_rows() -> Tensor:
    """Return the table of the patients that a network is tried on."""
    trial = model_guard._made_up(patients_of((1, 1, 1), image=(0,)))
    return trial.table


def test_all_checks_are_green_without_a_fault(tmp_path: Path) -> None:
    check_guard_sees_no_label()
    check_sensitivity()
    check_spread()
    check_fresh()
    check_divisor()
    check_order(tmp_path)
    refuse_network(lambda: nn.BatchNorm2d(4))
    refuse_network(lambda: nn.InstanceNorm2d(4, track_running_stats=True))


# --- clipping --------------------------------------------------------------------------------


def test_clipping_off(monkeypatch: Patch) -> None:
    monkeypatch.setattr(clip_and_noise, "clip_factor", lambda norm, *_: torch.ones_like(norm))
    with pytest.raises(RED, match="moved the sum"):
        check_sensitivity()


def test_clipping_by_part_of_a_gradient_instead_of_by_patient(monkeypatch: Patch) -> None:
    def smallest(samples: Sequence[Tensor]) -> Tensor:
        parts = [part for sample in samples for part in sample.flatten(1).split(8, dim=1)]
        return torch.stack([patient_norms([part]) for part in parts]).amin(0)

    monkeypatch.setattr(clip_and_noise, "patient_norms", smallest)
    with pytest.raises(RED, match="moved the sum"):
        check_sensitivity()


def test_clipping_by_image_instead_of_by_patient(monkeypatch: Patch) -> None:
    real = PatientOptimizer.accumulate

    def three_times(self: PatientOptimizer, gradients: Sequence[Tensor]) -> None:
        for _ in range(3):  # as many contributions as a patient has images
            real(self, gradients)

    monkeypatch.setattr(PatientOptimizer, "accumulate", three_times)
    with pytest.raises(RED, match="moved the sum"):
        check_sensitivity()


def test_a_clip_norm_that_is_a_thousandth_too_large(monkeypatch: Patch) -> None:
    real = clip_factor
    monkeypatch.setattr(clip_and_noise, "clip_factor", lambda n, c, k: 1.001 * real(n, c, k))
    with pytest.raises(RED, match="moved the sum"):
        check_sensitivity()


def test_a_guard_notices_that_clipping_is_off_before_a_run(monkeypatch: Patch) -> None:
    monkeypatch.setattr(clip_and_noise, "clip_factor", lambda norm, *_: 100 * torch.ones_like(norm))
    with pytest.raises(UnsafeModel, match="One patient moves the sum"):
        check_model(objective_of(seeded(TableNet), patients_of()), plan_of(), Silence())


def test_a_loss_that_broadcasts(monkeypatch: Patch) -> None:
    def broadcast(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")

    objective = objective_of(seeded(TableNet), patients_of())
    wrong = type(objective)(
        model=objective.model,
        item_loss=broadcast,
        patients=objective.patients,
        images_per_patient=4,
    )
    with pytest.raises(UnsafeModel, match="shape"):
        check_model(wrong, plan_of(), Silence())
    monkeypatch.setattr(model_guard, "check_loss", lambda _: None)
    check_model(wrong, plan_of(), Silence())  # nothing else would have noticed


def test_a_network_that_is_tried_with_real_labels(monkeypatch: Patch) -> None:
    real = model_guard._made_up
    monkeypatch.setattr(
        model_guard, "_made_up", lambda given: replace(real(given), target=given.target[:3])
    )
    with pytest.raises(RED, match="tells labels"):
        check_guard_sees_no_label()


# --- noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 1 / 3, 0.98, 1.02])
def test_no_noise_or_the_wrong_amount(monkeypatch: Patch, factor: float) -> None:
    real = ChaChaNoise.gaussian
    monkeypatch.setattr(
        ChaChaNoise, "gaussian", lambda self, shape, spread: factor * real(self, shape, spread)
    )
    with pytest.raises(RED, match="noise of"):
        check_spread()


def test_noise_that_forgets_the_clip_norm(monkeypatch: Patch) -> None:
    real = ChaChaNoise.gaussian
    monkeypatch.setattr(
        ChaChaNoise, "gaussian", lambda self, shape, spread: real(self, shape, spread / 0.1)
    )
    plan = plan_of(mechanism_of(1.0, clip_norm=0.1, divisor=1.0))
    with pytest.raises(RED, match="noise of"):
        check_noise(released(plan, ChaChaNoise()), 0.1)


def test_a_fixed_seed(monkeypatch: Patch) -> None:
    monkeypatch.setattr("common.privacy.noise.os.urandom", bytes)
    with pytest.raises(RED, match="repeats"):
        check_fresh()


def test_a_key_from_public_facts(monkeypatch: Patch) -> None:
    public = hashlib.sha256(b"run/site/round").digest()
    monkeypatch.setattr("common.privacy.noise.os.urandom", lambda count: public[:count])
    with pytest.raises(RED, match="repeats"):
        check_fresh()


def test_noise_only_when_somebody_was_drawn(monkeypatch: Patch) -> None:
    def silent(self: PatientOptimizer) -> None:
        for parameter in self.params:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(PatientOptimizer, "add_noise", silent)
    with pytest.raises(RED, match="noise of"):
        check_spread()


# --- divisor, order, networks ----------------------------------------------------------------


def test_a_divisor_from_the_draw(monkeypatch: Patch) -> None:
    real = PatientOptimizer.accumulate

    def counting(self: PatientOptimizer, gradients: Sequence[Tensor]) -> None:
        self.drawn = getattr(self, "drawn", 0) + len(gradients[0])
        self.expected_batch_size = self.drawn
        real(self, gradients)

    monkeypatch.setattr(PatientOptimizer, "accumulate", counting)
    with pytest.raises(RED, match="public divisor"):
        check_divisor()


def test_a_release_before_its_charge(monkeypatch: Patch, tmp_path: Path) -> None:
    real_charge, real_step = private_round.charge, private_step
    steps: list[Callable[[], None]] = []

    def late(*given: object) -> object:
        # The first step is taken before the charge is made.
        for step in steps:
            step()
        return real_charge(*given)  # type: ignore[arg-type]

    checked = private_round.checked_backend

    def first(objective, plan, guard, foreign):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        backend = checked(objective, plan, guard, foreign=foreign)
        plain = torch.optim.SGD(objective.model.parameters(), lr=0.1)
        steps.append(
            lambda: real_step(objective, optimizer_of(plain, plan, guard.noise), guard.noise)
        )
        return backend

    monkeypatch.setattr(private_round, "checked_backend", first)
    monkeypatch.setattr(private_round, "charge", late)
    with pytest.raises(RED):
        check_order(tmp_path)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(4, affine=False).eval(),
        lambda: nn.BatchNorm2d(4),
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    ],
)
def test_batch_statistics_are_caught_by_their_effect_when_their_kind_is_let_through(
    monkeypatch: Patch, norm: Callable[[], nn.Module]
) -> None:
    monkeypatch.setattr(model_guard, "check_layers", lambda _: None)
    refuse_network(norm)


def test_batch_norm_let_through_by_every_check(monkeypatch: Patch) -> None:
    for check in ("check_layers", "check_buffers", "check_peers"):
        monkeypatch.setattr(model_guard, check, lambda _: None)
    with pytest.raises(RED):
        refuse_network(lambda: nn.BatchNorm2d(4, affine=False))


# --- networks of others that remember ---------------------------------------------------------


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """Put the process back that a network was let change."""
    switches = Switches()
    code = Reachable(seeded(lambda: Remembers(PLACES["an attribute"])))
    yield
    switches.put_back()
    code.put_back()


REMEMBERING: dict[str, tuple[str, Callable[[Patch], None]]] = {
    "nothing is put back": (
        "an attribute",
        lambda patch: patch.setattr(Isolation, "alone", lambda _self, work, _seed=0: work()),
    ),
    "the network is taken for ours": (
        "the first image alone",
        lambda patch: patch.setattr(isolation, "holds_code_of_others", lambda *_: False),
    ),
    "its code is not looked at": (
        "a dict of the class",
        lambda patch: patch.setattr(Reachable, "_look_at_code", lambda _self: None),
    ),
    "switches stay": (
        "a switch",
        lambda patch: patch.setattr(Switches, "put_back", lambda _self: []),
    ),
    "generators go on": (
        "Python's generator",
        lambda patch: patch.setattr(
            isolation, "drawing_from", lambda _seed, _devices: contextlib.nullcontext()
        ),
    ),
}


@pytest.mark.parametrize("fault", REMEMBERING)
@pytest.mark.parametrize("check", [check_gradients_alone, check_scores_alone])
@pytest.mark.usefixtures("as_it_was")
def test_a_network_of_others_that_may_remember(
    monkeypatch: Patch, fault: str, check: Callable[[Memory], None]
) -> None:
    place, put_in = REMEMBERING[fault]
    check(PLACES[place])
    with monkeypatch.context() as patch:
        put_in(patch)
        with pytest.raises(RED, match="moved with a patient"):
            check(PLACES[place])


def _no_copies(patch: Patch) -> None:
    """Let every check find the network, and its code, as the check before left it."""
    patch.setattr(model_guard, "_copied", lambda trial, **_: trial)
    patch.setattr(Isolation, "alone", lambda _self, work, _seed=0: work())


def _few_calls(patch: Patch) -> None:
    patch.setattr(extension_guard, "_CALLS", 8)


def _one_mode(patch: Patch) -> None:
    patch.setattr(model_guard, "_MODES", (True,))


def _nobody_looks(patch: Patch) -> None:
    checks = [check for check in model_guard._FOREIGN_CHECKS if check.__name__ != "check_memory"]
    patch.setattr(model_guard, "_FOREIGN_CHECKS", tuple(checks))
    patch.setattr(model_guard, "check_peers", lambda _: None)


FIRST, LATE = PLACES["the first image alone"], after_calls(PLACES["an attribute"], 64)


@pytest.mark.parametrize(
    ("fault", "memory"),
    [
        (_no_copies, FIRST),
        (_few_calls, LATE),
        (_one_mode, in_evaluation_alone(FIRST)),
        (_nobody_looks, after_calls(PLACES["an attribute"], 8)),
    ],
)
def test_a_trial_that_does_not_find_what_a_network_remembers(
    monkeypatch: Patch, fault: Callable[[Patch], None], memory: Memory
) -> None:
    check_memory_of(memory)
    fault(monkeypatch)
    with pytest.raises(RED, match="is let through"):
        check_memory_of(memory)


def test_seeds_that_follow_the_order_of_patients(monkeypatch: Patch) -> None:
    place = PLACES["how much was drawn before"]
    check_gradients_alone(place)
    count = itertools.count()
    monkeypatch.setattr(patient_gradients, "seed_of", lambda *_: next(count) % 5)
    with pytest.raises(RED, match="moved with a patient"):
        check_gradients_alone(place)


@pytest.mark.parametrize("place", REMEMBERED)
def test_a_backbone_whose_code_meets_images(monkeypatch: Patch, tmp_path: Path, place: str) -> None:
    monkeypatch.setenv("WARDROUND_TEST_LAST", "0")
    monkeypatch.setattr(extension_backbone, "_check_code", lambda *_: None)
    monkeypatch.setattr(extension_backbone, "_check_record", lambda *_: 4)
    monkeypatch.setattr(extension_backbone, "recorded_network", lambda _, network, _images: network)
    with pytest.raises(RED, match="moved with another image"):
        check_features_alone(tmp_path, REMEMBERED[place])


def _any_operation(patch: Patch) -> None:
    patch.setattr(recorded, "fault_of", lambda *_: None)


RECORDS: dict[str, Callable[[Path], None]] = {
    "a loss that counts its calls": lambda _: check_loss_alone(counts_its_calls),
    "a class by the rows before": lambda _: check_class_alone(knows_the_rows_before),
    "a running mean of images": lambda folder: check_features_alone(folder, NORM),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_record_of_any_operation_may_remember(
    monkeypatch: Patch, tmp_path: Path, what: str
) -> None:
    RECORDS[what](tmp_path)
    _any_operation(monkeypatch)
    with pytest.raises(RED, match="moved with"):
        RECORDS[what](tmp_path)


def test_a_backbone_with_offsets_and_the_memory_of_all_images(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    check_pixels_alone(tmp_path, OFFSET)
    _any_operation(monkeypatch)
    check_pixels_alone(tmp_path, OFFSET)  # its image lies in memory of its own
    monkeypatch.setattr(Tensor, "clone", lambda self, **_: self)
    with pytest.raises(RED, match="moved with another image"):
        check_pixels_alone(tmp_path, OFFSET)


def test_a_record_of_what_others_hold(monkeypatch: Patch) -> None:
    check_constants_held()
    monkeypatch.setattr(recorded, "_copy", lambda _name, value: value)
    with pytest.raises(RED, match="what others hold"):
        check_constants_held()


def test_python_in_the_place_of_an_operation(monkeypatch: Patch, tmp_path: Path) -> None:
    check_no_kernels(tmp_path)
    monkeypatch.setattr(global_state, "_python_kernels", set)
    with pytest.raises(RED, match="ran code of an extension"):
        check_no_kernels(tmp_path)


# --- accounting and ledger -------------------------------------------------------------------


def test_a_history_of_which_only_the_last_entry_counts(monkeypatch: Patch, tmp_path: Path) -> None:
    def charges_until_refused(name: str) -> int:
        ledger, limit = Ledger(tmp_path / name), Limit(epsilon=1.0, delta=1e-4)
        for number in range(30):
            try:
                charged(ledger, "p", "run", number, mechanism_of(10.0, steps=1), limit, 1e-4)
            except BudgetExceeded:
                return number
        return 30

    def forgetful(history: Sequence[Mechanism], delta: float) -> float:
        return accounting.epsilon_of([*history][-1:], delta)

    assert charges_until_refused("sound.db") < 30
    monkeypatch.setattr("client.privacy.ledger.epsilon_of", forgetful)
    assert charges_until_refused("faulty.db") == 30


def test_a_chain_that_is_not_checked(monkeypatch: Patch, tmp_path: Path) -> None:
    from tests.client.privacy.test_ledger import filled, outside

    ledger = filled(tmp_path / "ledger.db")
    outside(tmp_path / "ledger.db", "UPDATE charges SET cohort = 'nobody' WHERE number = 1")
    with pytest.raises(LedgerDamaged):
        ledger.history("patients")
    monkeypatch.setattr("client.privacy.ledger_rows.chained", lambda _previous, _text: "x")
    with pytest.raises(LedgerDamaged):
        ledger.history("patients")


# --- records of before -----------------------------------------------------------------------


RESTORED: dict[str, Callable[[Patch], None]] = {
    "a ledger that has stood everywhere": lambda patch: patch.setattr(
        LedgerState, "knows", lambda _self, _head: True
    ),
    "disclosures that bear no witness": lambda patch: patch.setattr(
        "client.governance.records_check.last_mark", lambda _path: None
    ),
    "a receipt that nobody reads": lambda patch: patch.setattr(
        SiteRecords, "_heard", lambda _self, _kept, _receipt: None
    ),
}


@pytest.mark.parametrize(
    ("attack", "witnesses", "fault"),
    [
        (restored, "all", "a ledger that has stood everywhere"),
        (cut, "disclosures", "disclosures that bear no witness"),
        (swapped, "disclosures", "disclosures that bear no witness"),
        (whole_home, "coordinator", "a receipt that nobody reads"),
    ],
)
def test_an_old_ledger_that_nothing_is_held_against(
    monkeypatch: Patch, tmp_path: Path, attack: Attack, witnesses: str, fault: str
) -> None:
    RESTORED[fault](monkeypatch)
    with pytest.raises(RED):
        check_old_ledger(Federation(tmp_path), attack, witnesses)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("list alone", "client.governance.records_check.stood_at"),
        ("whole home", "client.governance.records_check.stood_at"),
    ],
)
def test_an_old_list_of_withdrawals_that_nothing_is_held_against(
    monkeypatch: Patch, tmp_path: Path, how: str, fault: str
) -> None:
    monkeypatch.setattr(fault, lambda _path, _told: True)
    with pytest.raises(RED):
        check_old_withdrawals(Federation(tmp_path), how)


@pytest.mark.parametrize(
    ("check", "fault", "value"),
    [
        (
            lambda it: check_old_decisions(it, "pause"),
            "client.governance.decisions_log.stood_at",
            True,
        ),
        (
            lambda it: check_old_disclosures(it, "alone"),
            "client.governance.records_check.had_line",
            True,
        ),
        (check_old_approvals, "client.governance.decisions_log.fault_of", None),
    ],
)
def test_old_decisions_and_disclosures_that_nothing_is_held_against(
    monkeypatch: Patch,
    tmp_path: Path,
    check: Callable[[Federation], None],
    fault: str,
    value: object,
) -> None:
    monkeypatch.setattr(fault, lambda *_: value)
    with pytest.raises((RED, pytest.fail.Exception)):
        check(Federation(tmp_path))


def test_another_key_that_splits_the_patients_anew(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(SiteRecords, "_other_key", lambda *_: None)
    with pytest.raises(RED):
        check_key(Federation(tmp_path), "another")


def test_a_loss_that_is_declared_for_nothing(monkeypatch: Patch, tmp_path: Path) -> None:
    nothing: dict[str, tuple[Mechanism, ...]] = {COHORT: ()}
    monkeypatch.setattr("client.governance.records_loss.lost_spending", lambda *_: nothing)
    with pytest.raises(RED):
        check_declared(Federation(tmp_path), restored)


def test_a_mechanism_that_cannot_be(monkeypatch: Patch) -> None:
    with pytest.raises(PrivacyError):
        mechanism_of(float("nan"))
    monkeypatch.setattr("common.privacy.plan.Mechanism.__post_init__", lambda _: None)
    assert accounting.epsilon_of([mechanism_of(float("nan"))], 1e-4) < 1e-3, "free of charge"


# --- evaluation ------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return attacked_home(tmp_path)


def test_evaluation_without_noise(monkeypatch: Patch, home: Home) -> None:
    monkeypatch.setattr(evaluation, "with_count_noise", lambda counts, *_: counts)
    with pytest.raises(RED, match="counts are off by"):
        check_noised(home)


def test_evaluation_with_sums(monkeypatch: Patch, home: Home) -> None:
    real = evaluation.with_count_noise

    def with_loss(counts: Statistics, spread: float, noise: Normal) -> Statistics:
        return replace(real(counts, spread, noise), sums={"loss": np.array(3.0)})

    monkeypatch.setattr(evaluation, "with_count_noise", with_loss)
    with pytest.raises(RED, match="sums leave"):
        check_noised(home)


def test_evaluation_that_is_charged_too_little(monkeypatch: Patch, home: Home) -> None:
    monkeypatch.setattr(evaluation, "count_sensitivity", lambda _: 0.5)
    with pytest.raises(RED, match="charged was"):
        check_noised(home)


def test_two_answers_for_one_round(monkeypatch: Patch, home: Home) -> None:
    monkeypatch.setattr(AnswersInFile, "find", lambda *_: None)
    with pytest.raises(RED, match="two answers"):
        check_once(home)


def test_a_ledger_that_knows_a_run_by_its_name_alone(monkeypatch: Patch, home: Home) -> None:
    monkeypatch.setattr(ledger_module, "_check_begun", lambda *_: None)
    with pytest.raises(RED, match="another run was answered"):
        check_ledger_alone(home, others()["fractions"], older=False)


def test_a_ledger_that_composes_by_name_alone(monkeypatch: Patch) -> None:
    real = composition._by_run
    listed: list[tuple[str, composition.Part, float, float, BoundTo | None]] = [
        ("a", "train", 5.0, 1.0, BOUND[0]),
        ("a", "test", 5.0, 1.0, BOUND[1]),
    ]
    own: dict[tuple[str, BoundTo], composition.Part] = {
        ("a", BOUND[0]): "train",
        ("a", BOUND[1]): "test",
    }
    check_one_name(listed, own)
    monkeypatch.setattr(
        composition, "_by_run", lambda all_: real([replace(one, bound=BOUND[0]) for one in all_])
    )
    with pytest.raises(RED, match="spent more"):
        check_one_name(listed, own)


def test_a_runs_limit_that_asks_of_a_description_alone(monkeypatch: Patch, tmp_path: Path) -> None:
    check_orders(tmp_path / "sound", "a part and everybody")
    monkeypatch.setattr(ledger_module, "COUNTED_APART", ())
    with pytest.raises(RED, match="the order decides"):
        check_orders(tmp_path / "faulty", "a part and everybody")


def test_an_outcome_that_is_taken_as_it_stands(monkeypatch: Patch) -> None:
    check_bounded()
    monkeypatch.setattr(
        Regression, "encode", lambda _, row: np.asarray([float(row["ef"])], np.float32)
    )
    with pytest.raises(RED, match="an outcome of 400 moves weights more"):
        check_bounded()


def test_sums_of_numbers_that_are_told_of_everybody(monkeypatch: Patch) -> None:
    check_small_counts()
    monkeypatch.setattr(agreement, "tellable", lambda *_: True)
    with pytest.raises(RED, match="a class by another name"):
        check_small_counts()


def test_cells_of_a_matrix_that_are_told_though_few_patients_are_in_them(
    monkeypatch: Patch,
) -> None:
    few = [(0, 0, patient) for patient in range(9)] + [(0, 1, 9), (1, 1, 10), (1, 1, 11)]
    check_groups(2, few, 3)
    monkeypatch.setattr(confusion, "_alone", lambda place, *_: np.ones(len(place), np.bool_))
    with pytest.raises(RED, match="a small group"):
        check_groups(2, few, 3)


def test_scores_that_depend_on_who_else_is_there(monkeypatch: Patch) -> None:
    monkeypatch.setattr(evaluation, "scores_apart", evaluation.score)
    with pytest.raises(RED, match="others have other scores"):
        check_apart()
