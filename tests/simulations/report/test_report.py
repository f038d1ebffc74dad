from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.cohort.split import simulated_key
from client.dicom.reasons import Reason
from common.bundle.card import Card
from common.bundle.evidence import Evidence
from common.bundle.readme import readme
from common.bundle.write import read_bundle
from common.config.run_config import PatientPrivacy
from common.data.sample import Patients
from common.metrics.intervals import Estimate
from common.metrics.names import metric_words
from common.privacy.statement import statement
from simulations.comparison.arms import ARMS
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import Compared, Verdict
from simulations.report.bundle_evidence import evidence_of
from simulations.report.calibration import calibration, reliability, wilson
from simulations.report.confounder import MIXED, confounder
from simulations.report.constant import constant_metrics
from simulations.report.examples import examples
from simulations.report.html_report import page_of, write_report
from simulations.report.pictures import Picture, curves, spread
from simulations.report.results import arm_results, results
from simulations.report.rows import owners
from simulations.report.seed_intervals import intervals
from simulations.report.tables import (
    constant_text,
    constants,
    metric_table,
    summary,
    values_of,
    verdict_rows,
)
from tests.simulations.comparisons import TASKS, comparison, run_config, with_confounder

PNG = b"\x89PNG\r\n"


def constants_of(found: Comparison) -> list[str]:
    return constants(found, intervals(found))


def page_text(found: Comparison, pictures: dict[str, Picture]) -> str:
    ends = intervals(found)
    return page_of(found, pictures, ends, constants(found, ends), has_bundle=False)


def page(found: Comparison) -> str:
    pictures = (curves(found), spread(found), calibration(found), examples(found))
    named = {p.name: p for p in pictures if p is not None}
    assert all(p.png.startswith(PNG) for p in named.values())
    return page_text(found, named)


# --- every task, every set of arms ---------------------------------------------------------


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_has_a_whole_page(kind: str) -> None:
    text = page(comparison(run_config(kind, confounder="view")))
    for part in ("Arms", "Did it help me?", "Curves", "Confounder: view", "Example", "Privacy"):
        assert part in text
    assert text.count("data:image/png") == 4


@pytest.mark.parametrize("arms", [a for n in (1, 2) for a in combinations(ARMS, n)], ids="+".join)
def test_any_arms_make_a_page(arms: tuple[str, ...]) -> None:
    found = comparison(run_config("binary"), [a for a in ARMS if a in arms])
    text = page_text(found, {})
    assert ("Did it help me?" in text) == ({"local", "federated"} <= set(arms))
    assert ("Simulated noise: no privacy claim" in text) == ("federated_dp" in arms)


def test_folds_and_scores_by_image_and_the_mean_of_sites_make_a_page() -> None:
    config = run_config("binary", confounder="view")
    config = config.model_copy(
        update={
            "cohort": config.cohort.model_copy(
                update={"split": config.cohort.split.model_copy(update={"folds": 2})}
            ),
            "evaluation": config.evaluation.model_copy(
                update={"unit": "image", "average": "sites"}
            ),
        }
    )
    text = page(comparison(config))
    assert "each over 2 folds" in text
    assert "mean of the hospitals" in text


def test_a_hospital_without_test_patients_is_not_a_fault() -> None:
    found = comparison(run_config("binary"))
    emptied = {}
    for key, (outcome,) in found.outcomes.items():
        some = outcome.test["south"]
        nobody = some._replace(
            prediction=some.prediction[:0], target=some.target[:0], loss=some.loss[:0]
        )
        emptied[key] = (replace(outcome, test={**outcome.test, "south": nobody}),)
    found = replace(
        found,
        outcomes=emptied,
        verdicts={},
        cohorts=(found.cohorts[0], replace(found.cohorts[1], examples={})),
    )
    assert "not known" in page(found)


# --- the page itself -----------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = page(comparison(run_config("binary")))
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert all(s.startswith("data:") for s in re.findall(r'(?:src|href)="([^"]+)"', text))


def test_names_from_folders_and_tables_are_escaped() -> None:
    found = comparison(run_config("binary", confounder="view"), names=("<script>x", "south"))
    found = with_confounder(found, ["<b>ap"] * 41)
    text = page_text(found, {})
    assert "<script>" not in text
    assert "<b>ap" not in text
    assert "&lt;b&gt;ap" in text


def test_the_same_comparison_gives_the_same_pictures() -> None:
    found = comparison(run_config("binary"))
    assert spread(found) == spread(found)


def test_it_says_who_was_left_out_and_what_to_do() -> None:
    text = page_text(comparison(run_config("binary")), {})
    assert "MISSING_SLICES" in text
    assert Reason.MISSING_SLICES.value in text


def test_real_images_are_marked_as_staying_here() -> None:
    assert "Shown on this machine only: these are patients" in page(
        comparison(run_config("binary"))
    )


def test_only_made_up_patients_are_called_invented() -> None:
    config = run_config("binary", extra="synthetic: {patients: 80}")
    found = comparison(config)
    assert "are invented" not in page_text(found, {})
    made_up = tuple(
        replace(c, items=replace(c.items, pseudonyms=tuple(f"SIM{n:012X}" for n in range(40))))
        for c in found.cohorts
    )
    assert "are invented" in page_text(replace(found, cohorts=made_up), {})


def test_the_summary_has_every_arm_s_mean_and_the_price() -> None:
    found = comparison(run_config("binary"))
    text = summary(found)
    for arm in found.arms:
        mean = np.mean([found.value(arm, seed) for seed in found.seeds])
        assert f"{mean:.3f}" in text
    assert "epsilon 3" in text


# --- did it help me? -----------------------------------------------------------------------


def test_every_model_of_a_hospital_has_its_line_with_harm_called_harm() -> None:
    found = comparison(run_config("binary"))
    gains: dict[Compared, Estimate] = {
        "federated": Estimate(value=-0.026, low=-0.049, high=-0.006, patients=40),
        "personalised": Estimate(value=0.15, low=0.03, high=0.25, patients=40),
        "chosen": Estimate(value=0.0, low=-0.02, high=0.02, patients=40),
    }
    given = Verdict(chosen=(("federated",), ("local",)), gains=gains)
    shared, personal, chosen = verdict_rows(replace(found, verdicts={"north": given}))
    assert (shared.difference, shared.interval) == ("-0.026", "-0.049 to -0.006")
    assert (shared.summary, shared.kind) == ("harmed", "harmed")
    assert (personal.summary, personal.kind) == ("helped", "helped")
    assert chosen.summary == "no difference beyond chance"
    assert chosen.model == (
        "what it would choose: the shared model (1 of 2), its own model (1 of 2)"
    )


# --- calibration ---------------------------------------------------------------------------


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    events, count = counts
    low, high = wilson(events / count, count)
    assert -1e-12 <= low <= events / count <= high <= 1 + 1e-12


def test_reliability_is_the_frequency_in_each_bin() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(200)
    truth = (rng.random(200) < predicted).astype(float)
    for mean, seen, _, _, count in reliability(predicted, truth):
        bin_of = int(mean * 8)
        inside = [t for p, t in zip(predicted, truth, strict=True) if int(p * 8) == bin_of]
        assert len(inside) == count
        assert seen == pytest.approx(sum(inside) / len(inside))


# --- confounder ----------------------------------------------------------------------------


def _by_pairs(score: list[float], truth: list[float]) -> float:
    """Return the AUROC pair by pair, in its better direction."""
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, ta in zip(score, truth, strict=True)
        for b, tb in zip(score, truth, strict=True)
        if ta == 1 and tb == 0
    ]
    area = sum(wins) / len(wins)
    return max(area, 1 - area)


def test_the_confounder_is_named_with_its_auroc_alone() -> None:
    found = comparison(run_config("binary", confounder="projection"))
    rng = np.random.default_rng(1)
    cohorts = []
    score: list[float] = []
    truth: list[float] = []
    for cohort in found.cohorts:
        ill = cohort.items.target[:, 0].numpy()
        values = np.where(rng.random(len(ill)) < 0.8, ill, 1 - ill)
        values[0] = values[1]  # the first patient has two images
        cohorts.append(replace(cohort, confounder=tuple(np.where(values == 1, "ap", "pa"))))
        score += values[1:].tolist()
        truth += ill[1:].tolist()
    part = confounder(replace(found, cohorts=tuple(cohorts)))
    assert part is not None
    expected = _by_pairs(score, truth)
    assert part.separations[0].area == pytest.approx(expected)
    assert f"projection alone separates the outcome with AUROC {expected:.2f}" in part.sentence


def test_the_model_is_measured_within_each_value_by_patient() -> None:
    found = comparison(run_config("binary", confounder="view"))
    # By number of the patient; the first patient's two images differ.
    found = with_confounder(found, ["ap", *["pa", "ap"] * 20])
    part = confounder(found)
    assert part is not None
    assert {w.value for w in part.within} <= {"ap", "pa", MIXED}
    score: list[float] = []
    truth: list[float] = []
    for cohort in found.cohorts:
        scores = found.outcomes["federated", 0][0].test[cohort.name]
        for row, name in enumerate(owners(found, cohort, 0, 0)):
            if int(name[2:]) % 2 == 1:  # odd patients are ap
                score.append(float(scores.prediction[row, 0]))
                truth.append(float(scores.target[row, 0]))
    one_seed = confounder(replace(found, seeds=(0,)))
    assert one_seed is not None
    ap = next(w for w in one_seed.within if w.value == "ap")
    assert ap.rows == len(score)
    assert max(ap.metric, 1 - ap.metric) == pytest.approx(_by_pairs(score, truth))


def test_rows_belong_to_their_patients() -> None:
    found = comparison(run_config("segmentation"))
    cohort = found.cohorts[0]
    scores = found.outcomes["federated", 1][0].test[cohort.name]
    for row, name in enumerate(owners(found, cohort, 1, 0)):
        place = cohort.items.pseudonyms.index(name)
        item = int(cohort.items.items_of(place)[0])
        assert torch.equal(scores.target[row], cohort.items.target[item])


# --- privacy -------------------------------------------------------------------------------


def test_the_statement_has_figures_unit_and_what_is_not_covered() -> None:
    privacy = PatientPrivacy(unit="patient", epsilon=3.0, default_patients=20)
    text = statement(
        privacy,
        {"east": 2.5, "west": 3.0},
        {"east": 1e-3, "west": 1e-5},
        {"east": 3.6},
        simulated=False,
    )
    assert "by patient, at each hospital" in text
    assert (
        "east epsilon 2.5 at delta 0.001, which is 3.6 at delta 1e-05; "
        "west epsilon 3 at delta 1e-05."
    ) in text
    assert "exact number" not in text
    for part in ("several hospitals", "charged to the same", "hyper-parameters", "stopping early"):
        assert part in text
    assert "imulated" not in text


def test_simulated_noise_is_stamped_and_no_privacy_is_said() -> None:
    privacy = PatientPrivacy(unit="patient", epsilon=3.0, default_patients=20)
    stamped = statement(privacy, {"east": 3.0}, {"east": 1e-3}, {}, simulated=True)
    assert stamped.startswith("Simulated noise: no privacy claim.")
    assert statement("none", {}, {}, {}, simulated=False).startswith("No privacy claim")


def test_a_count_that_each_update_told_is_said_to_be_covered_by_nothing() -> None:
    privacy = PatientPrivacy(
        unit="patient", epsilon=3.0, public_patients={"west": 50}, default_patients="declared"
    )
    spent = {"east": 3.0, "west": 3.0}
    text = statement(privacy, spent, dict.fromkeys(spent, 1e-3), spent, simulated=False)
    assert text.endswith(
        "Nor is the exact number of training patients of east, which each update told "
        "(default_patients: declared)."
    )


# --- a constant beside it ---------------------------------------------------------------------


def test_an_outline_that_finds_nothing_is_said_to_be_no_better_than_a_constant() -> None:
    found = comparison(run_config("segmentation"))
    assert 0.0 < float(constant_text(found)) < 1.0  # the full outline's
    good = constants(found, intervals(found))
    assert [line for line in good if "CONSTANT" in line] == []
    assert any("Noise exceeds signal" in line for line in good)
    empty = {
        key: tuple(
            replace(
                o,
                test={
                    n: s._replace(prediction=torch.zeros_like(s.prediction))
                    for n, s in o.test.items()
                },
            )
            for o in several
        )
        if key[0] == "federated_dp"
        else several
        for key, several in found.outcomes.items()
    }
    (line,) = [x for x in constants_of(replace(found, outcomes=empty)) if "CONSTANT" in x]
    assert line.startswith("Federated with DP: NO BETTER THAN A CONSTANT: Dice 0.000")


@pytest.mark.parametrize("kind", ["binary", "survival"])
def test_every_metric_of_labels_and_survival_stands_beside_that_of_the_best_constant(
    kind: str,
) -> None:
    found = comparison(run_config(kind))
    constant = constant_metrics(found)
    head, rows = metric_table(found)
    assert head[-1] == "a constant"
    assert {row[0] for row in rows} == {
        metric_words(name)[:1].upper() + metric_words(name)[1:] for name in constant
    }
    if kind == "binary":
        assert constant["auroc"] == 0.5
        split, key = found.config.cohort.split, simulated_key(found.seeds[0])
        parts = [c.split(split, key, 0) for c in found.cohorts]
        trained, tested = (
            torch.cat([by_patient_target(p[name]) for p in parts]) for name in ("train", "test")
        )
        share = float(trained.mean())
        assert constant["brier"] == pytest.approx(float(((tested - share) ** 2).mean()), abs=1e-5)
        assert constant["average_precision"] == pytest.approx(float(tested.mean()), abs=1e-5)


def by_patient_target(patients: Patients) -> torch.Tensor:
    first = [int(patients.items_of(n)[0]) for n in range(len(patients))]
    return patients.target[first, 0].double()


def test_probabilities_no_better_than_the_prevalence_are_said_to_be_none() -> None:
    found = comparison(run_config("binary"))
    wrong = {
        key: tuple(
            replace(o, test={n: s._replace(prediction=1 - s.target) for n, s in o.test.items()})
            for o in several
        )
        if key[0] == "federated"
        else several
        for key, several in found.outcomes.items()
    }
    lines = constants_of(replace(found, outcomes=wrong))
    assert any(
        line.startswith("Federated: NO BETTER THAN A CONSTANT by Brier score") for line in lines
    )


def test_the_interval_is_of_the_mean_that_stands_beside_it() -> None:
    found = comparison(run_config("binary"))
    low, high = intervals(found)["federated"]
    assert low < np.mean(values_of(found, "federated")) < high
    # The model of the second seed is always wrong: the mean goes down, and its interval with it.
    first, second = found.seeds
    wrong = tuple(
        replace(o, test={n: s._replace(prediction=1 - s.target) for n, s in o.test.items()})
        for o in found.outcomes["federated", second]
    )
    worse = replace(found, outcomes={**found.outcomes, ("federated", second): wrong})
    low, high = intervals(worse)["federated"]
    assert low < np.mean(values_of(worse, "federated")) < high
    assert high < intervals(replace(worse, seeds=(first,)))["federated"][0]


def test_the_hash_is_the_one_that_hospitals_approve() -> None:
    found = comparison(run_config("binary"))
    text = page_text(found, {})
    assert found.config.in_force().fingerprint() in text
    without = replace(found, arms=("federated",))  # the drawn scores cost no epsilon
    assert results(without)["configuration"] == found.config.in_force().fingerprint()


def test_names_for_programs_stand_in_no_table_that_people_read() -> None:
    text = page_text(comparison(run_config("binary")), {})
    shown, _, configuration = text.partition("<details><summary>Configuration")
    assert configuration
    for name in ("federated_dp", "average_precision", "calibration_error", "sensitivity_at"):
        assert name not in shown, name


# --- files ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_report_pictures_and_bundle_are_written(tmp_path: Path) -> None:
    found = comparison(run_config("binary"))
    write_report(tmp_path, found)
    assert "bundle/" in (tmp_path / "report.html").read_text("utf-8")
    written = {p.name for p in (tmp_path / "pictures").iterdir()}
    assert written == {"curves.png", "spread.png", "calibration.png", "examples.png"}
    bundle = read_bundle(tmp_path / "bundle")
    arm, seed, weights = found.shared_model or pytest.fail("no shared model")
    assert bundle.config.privacy == "none"
    assert (arm, seed) == ("federated", 0)
    assert all(torch.equal(bundle.weights[name], value) for name, value in weights.items())


# --- confusion matrices ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "threshold", "said"),
    [
        ("binary", 0.4, "from a probability of 0.4 on"),
        ("multiclass", "most_probable", "The most probable class counts"),
        ("ordinal", None, "The grade in the middle"),
    ],
)
def test_the_matrix_is_on_the_page_and_in_the_results(
    kind: str, threshold: float | str | None, said: str
) -> None:
    config = run_config(kind)
    evaluation = config.evaluation.model_copy(update={"threshold": threshold})
    found = comparison(config.model_copy(update={"evaluation": evaluation}), ["federated"])
    text = page(found)
    assert "Confusion matrix" in text
    assert said in text
    told = arm_results(found, "federated")["confusion_first_seed"]
    assert isinstance(told, list)
    (one,) = told
    assert isinstance(one, dict)
    patients = len(found.merged_scores("federated", 0).loss)
    assert np.sum(one["counts"]) == patients
    assert len(one["classes"]) == len(one["counts"]) == {"binary": 2, "multiclass": 3}.get(kind, 4)
    card = readme(found.config, card_with(evidence_of(found, "federated", 0)), {})
    assert "## Confusion matrix" in card


def card_with(evidence: Evidence) -> Card:
    return Card(metrics={}, privacy="", seed=0, round=1, evidence=evidence)


def test_without_a_threshold_there_is_no_matrix() -> None:
    found = comparison(run_config("binary"), ["federated"])
    assert "Confusion matrix" not in page(found)
    assert "confusion_first_seed" not in arm_results(found, "federated")
