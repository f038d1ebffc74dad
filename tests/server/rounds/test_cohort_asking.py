"""Sites' descriptions of their cohorts: admitted or not, kept, shown; none is obliged to answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.config.run_config import RunConfig
from common.messages.cohort_statistics import LEFT_OUT, CohortStatistics, StatisticsTable, layout_of
from common.messages.wire import Refusal, RefusalReason, SiteStatistics, StatisticsRequest
from common.platform.hash_chain import verify
from common.privacy.plan import LedgerHead, Mechanism, Spend
from server.cli.app import app
from server.files.folder import Folder, RunFolder
from server.files.status_reader import view_of
from server.rounds.cohort_asking import gathered, survey
from server.rounds.cohort_report import cohort_line, said, write_report
from server.rounds.cohort_survey import Survey, read_survey
from server.rounds.journal import Journal
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted
from server.service.operator_client import Operator
from tests.client.dicom_files import config_of
from tests.strict_html import Strict

CONFIG = config_of()
REQUEST = StatisticsRequest(run="run", round=0, seed=0, config=CONFIG)
SPEND = Spend(
    mechanism=Mechanism(
        noise_multiplier=1.5, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=1.0
    ),
    run_epsilon=0.5,
    run_delta=1e-5,
    cohort_epsilon=0.75,
    cohort_delta=2e-5,
    ledger=LedgerHead(charges=3, hash="ab" * 32),
    simulated_noise=False,
)


def counts(
    left_out: float | None = 6.0, config: RunConfig = CONFIG, **more: float | None
) -> CohortStatistics:
    """Return the statistics of a site with 294 used studies."""
    found = None if left_out is None else 294.0 + left_out
    tables = {
        name: StatisticsTable(unit="studies", rows=dict.fromkeys(rows, 0.0))
        for name, rows in layout_of(config).items()
        if rows
    }
    for name in ("studies", "patients"):
        rows = {"found": found, "used": 294.0, "left out": left_out}
        tables[name] = StatisticsTable(
            unit="studies" if name == "studies" else "patients", rows=rows
        )
    tables[LEFT_OUT] = StatisticsTable(unit="studies", rows=dict(more))
    return CohortStatistics(smallest=5, noise=0.0, tables=tables)


def answer(site: str, statistics: CohortStatistics | None = None) -> SiteStatistics:
    return SiteStatistics(run="run", round=0, site=site, statistics=statistics or counts())


def gather(*answers: SiteStatistics | Refusal | NotAdmitted, asked: Sequence[str] = ()) -> Survey:
    return gathered(iter(answers), REQUEST, asked or ("east", "north", "west"))


Change = Callable[[CohortStatistics], CohortStatistics]


def put(table: str, row: str, count: float | None) -> Change:
    def change(statistics: CohortStatistics) -> CohortStatistics:
        old = statistics.tables.get(table, StatisticsTable(unit="studies", rows={}))
        new = replace(old, rows={**old.rows, row: count})
        return replace(statistics, tables={**statistics.tables, table: new})

    return change


FAULTS: dict[str, Change] = {
    "a table of its own": put("names", "Mueller, Anna", 7.0),
    "a row of its own": put("modality", "Mueller, Anna", 7.0),
    "a reason that is no code": put(LEFT_OUT, "Mueller, Anna", 7.0),
    "a count below its own smallest cell": put("modality", "CT", 3.0),
    "half a patient": put("modality", "CT", 7.5),
    "a count below nothing": put("modality", "CT", -7.0),
    "no number": put("modality", "CT", float("nan")),
    "more than any hospital": put("modality", "CT", float("inf")),
    "a smaller cell than the run's": lambda s: replace(s, smallest=1),
    "noise of nothing known": lambda s: replace(s, noise=float("nan")),
    "noise without a charge": lambda s: replace(s, noise=2.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_left_out_and_the_others_count(fault: str) -> None:
    found = gather(answer("east"), answer("north", FAULTS[fault](counts())), answer("west"))
    assert set(found.sites) == {"east", "west"}
    assert set(found.not_told) == {"north"}
    assert "Mueller" not in json.dumps(found.to_json()).replace(found.not_told["north"], "")
    assert found.merged()["studies"].rows["used"].told == 2 * 294


def test_reasons_for_telling_nothing_are_kept() -> None:
    found = gather(
        Refusal(run="run", round=0, site="east", reason=RefusalReason.STATISTICS),
        NotAdmitted(site="north", fault=Fault.NOT_SIGNED, detail="...", used_up=True),
    )
    assert found.sites == {}
    assert found.not_told == {
        "east": RefusalReason.STATISTICS.value,
        "north": "its signature is not that of the site that sent it: ...",
        "west": "it did not answer in time",
    }
    assert cohort_line(found) == "0 of 3 sites described their cohorts"


def test_an_answer_to_another_run_or_round_and_a_second_one_count_for_nothing() -> None:
    found = gather(
        replace(answer("east"), run="other"),
        replace(answer("north"), round=1),
        answer("west"),
        answer("west", counts(left_out=50.0)),
    )
    assert set(found.sites) == {"west"}
    assert found.sites["west"].tables["studies"].rows["left out"] == 6


def test_noised_counts_come_with_their_charge() -> None:
    noisy = replace(put("modality", "CT", -1.7)(counts()), noise=2.0)
    found = gather(replace(answer("east", noisy), spend=SPEND))
    assert found.epsilon == {"east": 0.5}
    assert "each count with noise of 2 patients, epsilon 0.5" in "\n".join(said(found))


class Sites:
    """Two sites that describe their cohorts, and count how often they are asked."""

    def __init__(self) -> None:
        self.asked = 0

    def available(self) -> tuple[str, ...]:
        """Return both."""
        return "north", "east"

    def describe(
        self, request: StatisticsRequest, sites: Sequence[str]
    ) -> Iterator[SiteStatistics | Refusal | NotAdmitted]:
        """Yield one answer."""
        assert (request, sites) == (REQUEST, ("east", "north"))
        self.asked += 1
        yield answer("north", counts(TRUNCATED_PIXELS=6.0))
        yield answer("east", counts(left_out=None, EMPTY_FILE=None, BLANK=None))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.settings.write_text("name: study\n", encoding="utf-8")
    place = found.run("run")
    place.path.mkdir(parents=True)
    place.run.write_text('{"run": "run", "state": "done"}', encoding="utf-8")
    survey(Sites(), REQUEST, place, Journal(place.journal))
    return found


def test_what_was_told_is_kept_and_shown_as_a_line_and_a_page(folder: Folder) -> None:
    place = folder.run("run")
    found = read_survey(place.cohort)
    assert found is not None
    verify(place.journal)
    assert view_of(place).cohort == (
        "2 of 2 sites described their cohorts: studies found 594 or more, used 588, "
        "left out 6 or more"
    )
    page = place.report.read_text(encoding="utf-8")
    assert "6 x truncated pixels (TRUNCATED_PIXELS)" in page
    assert "blank (BLANK): held back (may be fewer than 5)" in page
    Strict().feed(page)


def test_the_report_command_says_it_and_writes_the_page_where_it_is_told(
    folder: Folder, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", "--folder", str(folder.path), "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert "north: studies found 300, used 294, left out 6" in done.output
    assert "    6 x truncated pixels (TRUNCATED_PIXELS)" in done.output
    assert page.exists()
    as_json = CliRunner().invoke(app, ["report", "run", "--folder", str(folder.path), "--json"])
    facts = json.loads(as_json.output)
    assert facts["merged"]["studies"]["rows"]["used"] == {"told": 588.0, "held_back_by": []}
    assert facts["merged"][LEFT_OUT]["rows"]["BLANK"]["held_back_by"] == ["east"]


@pytest.mark.parametrize(
    ("words", "said_"),
    [
        (("other",), "There is no run 'other'; there are: run."),
        (("run",), "wardround-coordinator status run"),
    ],
)
def test_a_run_whose_sites_told_nothing_yet_says_so(
    words: tuple[str, ...], said_: str, folder: Folder
) -> None:
    folder.run("run").cohort.unlink()
    done = CliRunner().invoke(app, ["report", *words, "--folder", str(folder.path)])
    assert done.exit_code == 2
    assert said_ in " ".join(done.output.split())


def test_a_damaged_file_is_exit_5_and_hides_no_run(folder: Folder) -> None:
    folder.run("run").cohort.write_text("{}", encoding="utf-8")
    done = CliRunner().invoke(app, ["report", "--folder", str(folder.path)])
    assert done.exit_code == 5
    assert view_of(folder.run("run")).cohort == ""


@pytest.mark.parametrize(("answers", "status"), [((answer("east"),), 0), ((), 1)])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_cohorts_fails_where_nobody_told_anything(
    answers: tuple[SiteStatistics, ...],
    status: int,
    options: tuple[str, ...],
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = json.dumps(gather(*answers).to_json())
    monkeypatch.setattr(Operator, "__init__", lambda *_: None)
    monkeypatch.setattr(Operator, "close", lambda _: None)
    monkeypatch.setattr(Operator, "cohorts", lambda *_: told)
    config = folder.path / "run.yaml"
    config.write_text(CONFIG.to_yaml(), encoding="utf-8")
    words = ["cohorts", str(config), "--folder", str(folder.path), *options]
    assert CliRunner().invoke(app, words).exit_code == status


def test_text_from_a_site_is_shown_as_text(tmp_path: Path) -> None:
    found = gather(asked=("<script>alert(1)</script>",))
    write_report(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    Strict().feed(page)
    assert RunFolder(tmp_path).report.name == "report.html"
