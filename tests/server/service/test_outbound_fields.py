"""The table of docs/privacy.md equals what leaves a site, read off its own client's requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from client.site.home import Home
from client.transport.fleet_client import FleetClient, PendingMessage
from client.transport.joining import join, state
from common.messages import message_header as message_headers
from common.messages.cohort_statistics import CohortStatistics
from common.messages.wire import (
    EvaluationRequest,
    Refusal,
    SiteUpdate,
    StatisticsRequest,
    TrainRequest,
)
from common.metrics.statistics import Statistics
from common.models.run_network import initial_weights
from common.privacy.plan import Spend
from tests.client.answering import CONFIG
from tests.privacy.made_up import patients_of
from tests.server.coordinator import Running, made, running
from tests.server.loopback import Hospital, run_over
from tests.server.outbound import Sent, recorded

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[3] / "docs" / "privacy.md"
#: Sites of the federation below, and how many patients train there; all agreed on 20.
PATIENTS = {"east": 16, "north": 31}
QUICK = CONFIG.model_copy(
    update={"exchange": CONFIG.exchange.model_copy(update={"round_minutes": 3.0})}
)
ANSWERS = {
    "standing": message_headers._StandingHeader,
    "cohort": message_headers._CohortHeader,
    "update": message_headers._UpdateHeader,
    "report": message_headers._ReportHeader,
    "refusal": message_headers._RefusalHeader,
}


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, settings = made(tmp_path_factory.mktemp("coordinator"))
    with running(folder, settings) as found:
        yield found


@pytest.fixture(scope="module")
def sent(coordinator: Running, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Return all that two sites sent in a private run, joining included."""
    path = tmp_path_factory.mktemp("sites")
    pull = FleetClient.pull

    def watched(fleet: FleetClient, wait_seconds: float) -> PendingMessage | None:
        delivery = pull(fleet, wait_seconds)
        if delivery is not None:
            found.requests.append(delivery._proto().metadata)
        return delivery

    with (
        pytest.MonkeyPatch.context() as patch,
        recorded(patch, coordinator.settings.address) as found,
    ):
        patch.setattr(FleetClient, "pull", watched)
        home = Home(path / "joining")
        join(home, coordinator.invite("joining").text())
        state(home)
        hospitals = {
            name: Hospital(
                coordinator,
                coordinator.enrolled(name),
                path / name,
                patients_of((1,) * patients, (0,)),
                private_only=True,
            )
            for name, patients in PATIENTS.items()
        }
        for hospital in hospitals.values():
            hospital.start()
        try:
            answer(coordinator, path / "run")
        finally:
            for hospital in hospitals.values():
                hospital.stop()
        beat(coordinator, hospitals["east"])
    return found


def beat(coordinator: Running, hospital: Hospital) -> None:
    """Say once that a site is there, as its daemon does every few seconds."""
    authority = coordinator.folder.ca.read_text(encoding="ascii")
    fleet = FleetClient(coordinator.settings.address, authority, hospital.site.key)
    fleet.activate()
    fleet.heartbeat()
    fleet.close()


def answer(coordinator: Running, folder: Path) -> None:
    """Ask for everything that can be asked for."""
    names, weights = list(PATIENTS), initial_weights(QUICK, 0)
    with run_over(coordinator, QUICK, folder) as (sites, _):
        while len(sites.approval.ready(sites.available())) < len(names):
            sites.propose()
        list(sites.describe(StatisticsRequest(run="run", round=0, seed=0, config=QUICK), names))
        train = TrainRequest(run="run", round=1, seed=0, config=QUICK, weights=weights)
        updates = list(sites.train(train, names))
        assert [type(update) for update in updates] == [SiteUpdate, SiteUpdate]
        list(
            sites.evaluate(
                EvaluationRequest(
                    run="run", round=1, seed=0, config=QUICK, weights=weights, split="test"
                ),
                names,
            )
        )
        public = QUICK.model_copy(update={"privacy": "none"})
        refused = TrainRequest(run="other", round=1, seed=0, config=public, weights=weights)
        assert all(isinstance(no, Refusal) for no in sites.train(refused, names))


def declared() -> set[str]:
    """Return every field that an answer's header can have, told or not in the run above."""
    found = {
        f"{kind}: {name}"
        for kind, header in ANSWERS.items()
        for name in header.model_fields
        if name not in {"spend", "statistics"}
    }
    found |= {f"cohort: statistics.{part.name}" for part in fields(CohortStatistics)}
    found |= {f"report: statistics.{part.name}" for part in fields(Statistics)}
    return found | {f"spend: {name}" for name in _leaves(Spend)}


def _leaves(kind: type, under: str = "") -> Iterator[str]:
    import typing

    hints = typing.get_type_hints(kind)
    for part in fields(kind):
        inner, name = hints[part.name], f"{under}{part.name}"
        if is_dataclass(inner):
            assert isinstance(inner, type)
            yield from _leaves(inner, f"{name}.")
        else:
            yield name


def rows() -> dict[str, tuple[str, str]]:
    """Return the page's table: whether the claim covers a field, and where it is logged."""
    found: dict[str, tuple[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `") or len(cells) != 4:
            continue
        for name in re.findall(r"`([^`]+)`", cells[0]):
            assert name not in found, f"{name} has two rows"
            found[name] = cells[2], cells[3]
    return found


def test_every_field_that_leaves_has_a_row_and_every_row_leaves(sent: Sent) -> None:
    assert sent.faults == []
    leaves, table = set(sent.fields) | declared(), set(rows())
    assert leaves - table == set(), "give each of these a row in docs/privacy.md"
    assert table - leaves == set(), "docs/privacy.md has rows for what does not leave"


def test_every_row_says_whether_it_is_covered_and_where_it_is_logged() -> None:
    for name, (covered, logged) in rows().items():
        assert covered in {"no patient", "covered", "not covered", "charged, or not covered"}, name
        assert logged in {"disclosures", "-"}, name


def test_no_answer_says_how_long_the_work_took(sent: Sent) -> None:
    assert {tuple(v) for v in sent.fields["PushMessagesRequest.clientapp_runtime_list"]} == {(0.0,)}
    # It bears the time and the deadline of its request, not its own.
    for name in ("created_at", "ttl"):
        told = set(sent.fields[f"PushMessagesRequest.messages_list.metadata.{name}"])
        assert set(sent.fields[f"Message.metadata.{name}"]) <= told
        assert told <= {getattr(request, name) for request in sent.requests}


def test_what_two_sites_of_unlike_size_say_differs_in_the_noised_sum_alone(sent: Sent) -> None:
    def told(kind: str, site: str) -> dict[str, object]:
        found = [h for h in sent.headers if h["kind"] == kind and h["site"] == site]
        assert len(found) == 1
        spend = found[0].get("spend")
        if isinstance(spend, Mapping):
            found[0]["spend"] = {n: v for n, v in spend.items() if n != "ledger"}
        # Seconds are those of the machine, on made-up images.
        return {n: v for n, v in found[0].items() if n not in {"site", "seconds"}}

    for kind in ("standing", "update"):
        assert told(kind, "east") == told(kind, "north")


def test_what_was_read_off_are_answers_of_all_kinds_that_private_runs_get(sent: Sent) -> None:
    kinds = {str(header["kind"]) for header in sent.headers}
    assert {"standing", "update", "refusal"} <= kinds <= set(ANSWERS)
