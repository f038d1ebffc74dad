"""A site describes its cohort: from real files, by its policy, charged where it is noised."""

from __future__ import annotations

import math
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.cohort.split import simulated_key
from client.cohort_statistics.description import Telling, tables_of
from client.cohort_statistics.description import facts_of as cohort_facts
from client.cohort_statistics.released_counts import by_patient_apart, sensitivity
from client.governance.plain_words import described
from client.governance.policy import judge_statistics
from client.governance.request_admission import question_of
from client.node.request_handler import RequestHandler, SiteContext, site_of
from client.privacy.ledger import Ledger
from client.site.policy_section import PolicyRules
from client.site.quality_section import QualityRules
from client.site.withdrawals import writing
from common.config.parts.ranges import bin_of, bins
from common.config.run_config import RunConfig, parse_config
from common.messages.cohort_statistics import (
    AXIS_EXTENTS,
    AXIS_SPACINGS,
    FOREGROUND,
    LEFT_OUT,
    layout_of,
)
from common.messages.signed_envelope import facts_of, seal
from common.messages.wire import Refusal, RefusalReason, Request, SiteStatistics, StatisticsRequest
from common.privacy.accounting import epsilon_of
from common.privacy.plan import count_mechanism
from tests.client.answering import Letters, question
from tests.client.dicom_files import config_of, load, save, segmentation, slices, write_labels
from tests.client.letters import FolderFleet

PATIENTS = 24
CONFIG = config_of(
    cohort="{images: {size: [8, 16, 16], fit: stretch, modalities: [CT]}, smallest_cohort: 2, "
    "split: {test_fraction: 0.3, validation_fraction: 0.3}}"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of volumes: one cut off, two of six slices without one, seven of MR."""
    site = tmp_path_factory.mktemp("describing") / "data"
    rng = np.random.default_rng(0)
    rows = []
    for number in range(PATIENTS):
        patient = f"P{number:02d}"
        volume = rng.integers(0, 900, (4, 16, 16)).astype("uint16")
        for place, dataset in enumerate(slices(volume, patient, gap=2.5)):
            dataset.PatientAge = f"{20 + number:03d}Y"
            if number >= 17:
                dataset.Modality = "MR"
            save(site / patient / f"{place}.dcm", dataset)
        rows.append({"PatientID": patient, "ill": number % 2})
    cut = site / "P00" / "2.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    for patient in ("P01", "P02"):
        (site / patient / "1.dcm").unlink()
    write_labels(site, rows)
    return site


def handler(
    data: Path, home: Path, telling: Telling | None = None, epsilon: float = 1000.0
) -> RequestHandler:
    return RequestHandler(
        SiteContext(
            name="north",
            data=data,
            labels=data / "labels.csv",
            cache=home / "cache",
            memory=home / "memory",
            ledger=home / "ledger.db",
            index=home / "index.db",
            withdrawals=home / "withdrawals.jsonl",
            quality=QualityRules(),
            telling=telling or Telling(),
            largest_epsilon=epsilon,
            cohort_delta=1e-5,
            tell_patients=True,
            device=torch.device("cpu"),
            identity_key=home / "identity.key",
        ),
        lambda _text: None,
    )


def ask(config: RunConfig = CONFIG) -> StatisticsRequest:
    return StatisticsRequest(run="run", round=0, seed=0, config=config)


def answered(desk_: RequestHandler, config: RunConfig = CONFIG) -> SiteStatistics:
    answer = desk_.answer(ask(config))
    assert isinstance(answer, SiteStatistics), answer
    return answer


def test_every_study_is_counted_once_and_few_are_held_back(data: Path, tmp_path: Path) -> None:
    told = answered(handler(data, tmp_path)).statistics
    assert told.tables["studies"].rows == {"found": 24, "used": 14, "left out": 10}
    assert told.tables["patients"].rows == {"found": 24, "used": 14, "left out": 10}
    # 1 + 2 patients are fewer than 5, and 10 - 7 would give them away.
    assert told.tables[LEFT_OUT].rows == {
        "TRUNCATED_PIXELS": None,
        "MISSING_SLICES": None,
        "WRONG_MODALITY": None,
    }
    assert told.tables["class of ill"].rows == {"0": 7, "1": 7}
    assert told.tables["slice distance (mm)"].rows["2 to 3"] == 14
    ages = told.tables["age (years)"].rows
    assert (ages["20 to 30"], ages["30 to 40"]) == (7, 7)
    assert told.tables["mean intensity"].rows["255 to 500"] == 14
    assert told.smallest == 5


def test_a_site_that_tells_smaller_cells_tells_why(data: Path, tmp_path: Path) -> None:
    config = parse_config(CONFIG.to_yaml().replace("smallest_cell: 5", "smallest_cell: 1"))
    told = answered(handler(data, tmp_path, Telling(smallest_cell=1)), config).statistics
    assert told.tables[LEFT_OUT].rows == {
        "TRUNCATED_PIXELS": 1,
        "MISSING_SLICES": 2,
        "WRONG_MODALITY": 7,
    }
    # The stricter of the run's and the site's cell is kept to.
    strict = answered(handler(data, tmp_path, Telling(smallest_cell=8)), config).statistics
    assert strict.smallest == 8
    assert strict.tables["class of ill"].rows == {"0": None, "1": None}


def test_no_word_of_a_header_or_a_table_is_in_the_answer(data: Path, tmp_path: Path) -> None:
    answer = answered(handler(data, tmp_path))
    rows = layout_of(CONFIG)
    assert set(answer.statistics.tables) == set(rows)
    for name, table in answer.statistics.tables.items():
        assert name == LEFT_OUT or set(table.rows) == set(rows[name])
    assert "P0" not in seal(answer).header
    assert "1.2.826" not in seal(answer).header


def test_nothing_tells_that_somebody_was_withdrawn(data: Path, tmp_path: Path) -> None:
    with writing(tmp_path / "withdrawals.jsonl") as log:
        for number in range(9, 14):
            log.withdraw(f"P{number:02d}")
    told = answered(handler(data, tmp_path)).statistics
    assert told.tables["studies"].rows == {"found": 19, "used": 9, "left out": 10}
    assert told.tables["patients"].rows == {"found": 19, "used": 9, "left out": 10}
    assert "WITHDRAWN" not in told.tables[LEFT_OUT].rows


def test_noise_is_charged_before_it_is_drawn_and_hides_the_counts(
    data: Path, tmp_path: Path
) -> None:
    answer = answered(handler(data, tmp_path, Telling(noise=4.0)))
    told, ledger = answer.statistics, Ledger(tmp_path / "ledger.db")
    assert answer.spend is not None
    assert answer.spend.ledger == ledger.head()
    assert not answer.spend.simulated_noise
    (mechanism,) = ledger.accounts()["patients"]["run/statistics"]
    tables = len(told.tables)
    assert mechanism.noise_multiplier == pytest.approx(4.0 / tables**0.5)
    assert {table.unit for table in told.tables.values()} == {"patients"}
    values = [n for table in told.tables.values() for n in table.rows.values()]
    assert None not in values
    assert any(n != int(n or 0) for n in values if n)


def test_a_run_that_asks_for_noise_gets_it_and_a_spent_budget_is_a_refusal(
    data: Path, tmp_path: Path
) -> None:
    config = parse_config(CONFIG.to_yaml().replace("count_noise: 0.0", "count_noise: 3.0"))
    told = answered(handler(data, tmp_path), config)
    assert told.statistics.noise == 3.0
    again = handler(data, tmp_path, epsilon=0.01).answer(ask(config))  # another process, later
    assert again == told, "the same noise, or two answers would tell more than one"
    answer = handler(data, tmp_path, epsilon=0.01).answer(replace(ask(config), run="other"))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.BUDGET
    assert Ledger(tmp_path / "ledger.db").head().charges == 1


def test_a_table_without_images_is_described_by_its_patients(tmp_path: Path) -> None:
    rows = [{"PatientID": f"P{n}", "ill": "1" if n < 8 else "0", "age": n} for n in range(20)]
    rows[19]["ill"] = "perhaps"
    write_labels(tmp_path / "data", rows)
    config = config_of(
        cohort="{table: {numbers: [{column: age}]}, smallest_cohort: 2}", network="table"
    )
    told = answered(handler(tmp_path / "data", tmp_path / "home"), config).statistics
    assert "studies" not in told.tables
    assert "modality" not in told.tables
    assert told.tables["patients"].rows == {"found": None, "used": 19, "left out": None}
    assert told.tables["class of ill"].rows == {"0": 11, "1": 8}


def survival(n: int) -> dict[str, object]:
    return {
        "PatientID": f"P{n}",
        "died": n % 2,
        "days": 30 * n,
        "dose": n,
        "a": n % 2,
        "b": "" if n < 6 else 1,
    }


@pytest.mark.parametrize(
    ("task", "tables"),
    [
        (
            "{kind: prognosis, event: died, time: days, intervals: [300.0, 600.0]}",
            {
                "outcome died": {"event": 10, "no event": 10},
                "follow-up (days)": {
                    "0 to 300": 10,
                    "300 to 600": 10,
                    "600 and more": 0,
                    "unknown": 0,
                },
            },
        ),
        (
            "{kind: diagnosis, type: multilabel, target: [a, b]}",
            {
                "label a": {"0": 10, "1": 10, "unknown": 0},
                "label b": {"0": 0, "1": 14, "unknown": 6},
            },
        ),
        (
            "{kind: diagnosis, type: multiclass, target: died, classes: ['0', '1']}",
            {"class of died": {"0": 10, "1": 10}},
        ),
        (
            "{kind: prognosis, outcome: fixed_horizon, event: died}",
            {"outcome died": {"event": 10, "no event": 10, "unknown": 0}},
        ),
    ],
)
def test_outcomes_of_every_task_are_counted_by_patient(
    task: str, tables: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    write_labels(tmp_path / "data", [survival(n) for n in range(20)])
    config = config_of(
        task, cohort="{table: {numbers: [{column: dose}]}, smallest_cohort: 2}", network="table"
    )
    told = answered(handler(tmp_path / "data", tmp_path / "home"), config).statistics
    assert {name: told.tables[name].rows for name in tables} == tables


# --- policy, letters, words ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("private", "rules", "told"),
    [
        (False, {}, True),
        (False, {"statistics": False}, False),
        (True, {}, False),
        (True, {"statistics_noise": 20.0}, True),
        (True, {"statistics": False, "statistics_noise": 20.0}, False),
    ],
)
def test_a_private_run_is_told_of_the_cohort_with_noise_alone(
    private: bool,  # noqa: FBT001
    rules: dict[str, object],
    told: bool,  # noqa: FBT001
) -> None:
    config = question().config if private else CONFIG
    denied = judge_statistics(config, PolicyRules.model_validate(rules))
    assert (denied is None) is told
    assert denied is None or denied.reason is RefusalReason.STATISTICS


def test_a_site_may_keep_all_of_it_to_itself_and_train(tmp_path: Path) -> None:
    letters = Letters(tmp_path)
    request = replace(ask(question().config), run="run")
    fleet = FolderFleet(tmp_path / "coordinator")
    admission = letters.admission()
    policy = admission.config.policy.model_copy(update={"statistics": False})
    correspondence = letters.open()
    correspondence.admission = replace(
        admission, config=admission.config.model_copy(update={"policy": policy})
    )
    requests: tuple[Request, ...] = (request, question())
    for number, asked in enumerate(requests):
        fleet.ask(asked, number=number)
        for _ in range(4):
            correspondence.turn(fleet, 0.1)
    kinds = {facts_of(envelope.header)["kind"] for envelope in fleet.answers()}
    assert kinds == {"refusal", "update"}


def test_a_description_is_disclosed_and_given_again_bit_by_bit(tmp_path: Path) -> None:
    letters = Letters(tmp_path, statistics_noise=20.0)
    fleet = FolderFleet(tmp_path / "coordinator")
    for number in range(2):  # asked anew, as after a crash of the coordinator
        fleet.ask(ask(question().config), number=number)
        correspondence = letters.open()
        for _ in range(4):
            correspondence.turn(fleet, 0.1)
    first, second = fleet.answers()
    assert first.digest == second.digest
    assert facts_of(first.header)["kind"] == "cohort"
    lines = (tmp_path / "disclosures.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all('"kind": "cohort"' in line or '"kind":"cohort"' in line for line in lines)


def test_a_question_for_a_description_is_understood_before_it_is_answered() -> None:
    asked = question_of(seal(ask()).header)
    assert (asked.kind, asked.round) == ("statistics", 0)


def test_whoever_approves_a_run_is_told_what_leaves_of_the_cohort() -> None:
    said = "\n".join(text for heading, text in described(CONFIG) if heading == "leaves")
    assert "once, before the first round, counts of what was found, used and left out" in said
    assert "none of fewer than 5 patients" in said
    noised = parse_config(CONFIG.to_yaml().replace("count_noise: 0.0", "count_noise: 3.0"))
    assert any("brightness: each with noise of 3 patients" in text for _, text in described(noised))


TABLE = config_of(
    "{kind: prognosis, event: died, time: days, intervals: [100, 200, 400]}",
    "{table: {numbers: [{column: age}]}, smallest_cohort: 2}",
    "table",
)
#: Lines of one patient that cannot be used.
LINES = {
    "outcome": "".join(f"Q,0,soon{n},{n}\n" for n in range(90)),
    "malformed": "".join(f"Q,0,5,{n},7\n" for n in range(40)),
    "no key": "".join(f",0,5,{n}\n" for n in range(90)),
    "both": "Q,0,x,1\nQ,0,5,6,7\n,0,5,6\n" * 30,
    "three reasons": "Q,0,x,1\nQ,,5,2\nQ,0,5,6,7\n",
}


def counts_of(folder: Path, lines: str) -> tuple[dict[tuple[str, str], int], float]:
    people = "".join(f"P{n},{n % 2},{50 + n},{40 + n}\n" for n in range(120))
    folder.mkdir()
    (folder / "labels.csv").write_text(f"PatientID,died,days,age\n{people}{lines}")
    cohort = load(folder, TABLE, folder / "cache")
    facts = cohort_facts(cohort, site_of(cohort, TABLE, simulated_key(0)), TABLE)
    tables = tables_of(TABLE, (), facts, {})
    apart = by_patient_apart(tables)
    counts = {(name, row): len(p) for name, m in apart.items() for row, p in m.rows.items()}
    return counts, sensitivity(tables)


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_one_patient_move_the_counts_by_one_patient_without_privacy_too(
    tmp_path: Path, kind: str
) -> None:
    """Noise on counts of a run without privacy is charged by patient as well."""
    before, _ = counts_of(tmp_path / "without", "")
    after, reach = counts_of(tmp_path / "with", LINES[kind])
    moved = [after[row] - before[row] for row in after]
    assert sum(by**2 for by in moved) <= reach**2
    assert max(moved) <= 1


def test_files_that_name_nobody_count_for_nobody_where_counts_are_noised(
    data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for number in range(60):
        file = copy / f"folder {number}" / "cut.dcm"
        file.parent.mkdir()
        file.write_bytes(b"no DICOM" * 40)

    def left_out(folder: Path, name: str) -> float:
        told = answered(handler(folder, tmp_path / name, Telling(noise=2.0))).statistics
        return told.tables["patients"].rows["left out"] or 0.0

    assert abs(left_out(copy, "with") - left_out(data, "without")) < 30


# --- volumes that are trained on by patches ---------------------------------------------------

PATCHES = parse_config("""
name: patches
task: {kind: segmentation, structures: {lump: [1]}}
cohort:
  images: {patch: [16, 16, 16], spacing: [2.0, 1.0, 1.0], modalities: [CT]}
  smallest_cohort: 2
model: {network: unet, width: 2}
training: {rounds: 1}
privacy: none
""")
#: Of each volume, and in no message: mm between rows, and between slices.
CANARIES = [(0.712345 + n / 1e4, 2.312345 + n / 1e4) for n in range(10)]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of outlined volumes of spacings that nobody else has."""
    site = tmp_path_factory.mktemp("volumes") / "data"
    rng = np.random.default_rng(0)
    rows = []
    for number, (between_rows, between_slices) in enumerate(CANARIES):
        patient = f"P{number:02d}"
        volume = rng.integers(0, 900, (6, 40, 30)).astype("uint16")
        series = slices(volume, patient, gap=between_slices)
        mask = np.zeros((6, 40, 30), np.uint8)
        mask[2, :4, : 3 + number % 2] = 1  # 12 or 16 of 7200 voxels as scanned
        for place, dataset in enumerate(series):
            dataset.PixelSpacing = [between_rows, 1.3 * between_rows]
            save(site / patient / f"{place}.dcm", dataset)
        save(site / patient / "seg.dcm", segmentation({1: mask}, series))
        rows.append({"PatientID": patient, "mask": f"{patient}/seg.dcm"})
    write_labels(site, rows)
    return site


def test_volumes_for_patches_are_told_in_public_ranges_alone(volumes: Path, tmp_path: Path) -> None:
    answer = answered(handler(volumes, tmp_path), PATCHES)
    tables, rows = answer.statistics.tables, layout_of(PATCHES)
    assert set(tables) == set(rows)
    expected = {
        "slice spacing (mm)": 2.313,
        "row spacing (mm)": 0.713,
        "column spacing (mm)": 1.3 * 0.713,
        "slice extent (mm)": 6 * 2.313,
        "row extent (mm)": 40 * 0.713,
        "column extent (mm)": 30 * 1.3 * 0.713,
    }
    for name, value in expected.items():
        edges = AXIS_SPACINGS if "spacing" in name else AXIS_EXTENTS
        assert tables[name].rows == {
            row: 10.0 * (row == bin_of(value, edges)) for row in bins(edges)
        }
    assert sum(n or 0 for n in tables[FOREGROUND].rows.values()) == 10
    assert tables[FOREGROUND].rows["unknown"] == 0


def test_no_value_of_a_volume_is_in_the_message(volumes: Path, tmp_path: Path) -> None:
    """Neither as text nor as a number of any width, with noise or without."""
    plain = answered(handler(volumes, tmp_path / "plain"), PATCHES)
    noised = answered(handler(volumes, tmp_path / "noised", Telling(noise=3.0)), PATCHES)
    assert noised.spend is not None
    assert noised.spend.run_epsilon > 0
    for answer in (plain, noised):
        envelope = seal(answer)
        sent = envelope.header.encode() + b"".join(envelope.frames)
        for pair in CANARIES:
            for value in (*pair, 1.3 * pair[0], 40 * pair[0], 39 * pair[0], 6 * pair[1]):
                # Shorter ones come about by chance among the counts with noise.
                digits = 6 if answer is plain else 9
                assert f"{value:.{digits}g}"[: digits + 1].encode() not in sent
                for kind in ("<d", ">d", "<f", ">f"):
                    assert struct.pack(kind, value) not in sent


def test_the_noise_of_volumes_is_charged_for_every_table_of_them(
    volumes: Path, tmp_path: Path
) -> None:
    told = answered(handler(volumes, tmp_path, Telling(noise=10.0)), PATCHES)
    assert told.spend is not None
    tables = len(layout_of(PATCHES).keys() - {"studies"})
    mechanism = count_mechanism(math.sqrt(tables), 10.0)
    assert told.spend.run_epsilon == pytest.approx(epsilon_of([mechanism], 1e-5), rel=1e-6)
