"""Workitems of a UPS-RS worklist: claimed, fetched from Orthanc, scored, told of as done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from client.inference.arrivals.queue import ArrivalQueue
from client.inference.arrivals.score_and_send import Post
from client.inference.arrivals.worklist import Performer, WorkitemLedger, by_worklist
from client.pacs.workitems import Workitems
from client.site.home import Home
from client.site.pacs_section import PacsConfig, Worklist
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import uid
from tests.client.pacs.listener import in_pacs, series, study_of, volumes
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching
from tests.client.pacs.worklist_server import WorklistServer, worklist_server
from tests.client.small_models import model_of, stirred

pytestmark = pytest.mark.processes

ITEM = uid("workitem")


@dataclass
class Made:
    """A performer without a process, beside the listener's other half."""

    server: WorklistServer
    performer: Performer
    post: Post

    def run(self) -> None:
        """Look at the worklist, then score and send what is there."""
        self.performer.look()
        while self.post.step(lambda: 1e12):
            pass
        self.performer.look()


@pytest.fixture
def made(tmp_path: Path, pacs: Pacs) -> Iterator[Made]:
    with worklist_server() as server:
        yield of(tmp_path, pacs, server)


def of(folder: Path, pacs: Pacs, server: WorklistServer) -> Made:
    home = Home(folder / "home")
    rules = Worklist(url=server.url, label="wardround")
    config = reaching(pacs, listen={"settle_seconds": 0.1, "worklist": rules.model_dump()})
    arrivals = ArrivalQueue(home.arrivals)
    home.arrived.mkdir(parents=True, exist_ok=True)
    performer = Performer(
        pacs=config,
        rules=rules,
        folder=home.arrived,
        ledger=WorkitemLedger(home.folder / "worklist.db"),
        arrivals=arrivals,
    )
    model = model_of(volumes(), stirred(volumes()))
    post = Post(
        home=home, model=model, arrivals=arrivals, pacs=config, send=True, rules=config.listen
    )
    return Made(server, performer, post)


def test_a_workitem_is_claimed_performed_and_completed_with_its_results(
    made: Made, tmp_path: Path, pacs: Pacs
) -> None:
    files = series(tmp_path / "a", "WORKLIST-A")
    pacs.store(files)
    made.server.put(uid("other"), study_of(files), label="somebody else's")
    made.server.put(ITEM, study_of(files))
    made.server.ignores_search = True  # what is not ours is not taken all the same
    made.performer.look()
    assert made.server.state(ITEM) == "IN PROGRESS"
    made.run()
    assert made.server.state(ITEM) == "COMPLETED"
    assert made.server.state(uid("other")) == "SCHEDULED"
    (performed,) = made.server.items[ITEM].UnifiedProcedureStepPerformedProcedureSequence
    told = {
        instance.ReferencedSOPInstanceUID
        for item in performed.OutputInformationSequence
        for instance in item.ReferencedSOPSequence
    }
    assert in_pacs(pacs, study_of(files)) == ["CT"] * 8 + ["OT", "SR"]
    assert len(told) == 2
    assert all(pacs.file(one) for one in told)
    made.run()
    assert made.performer.ledger.open() == ()


@pytest.mark.parametrize("answered", [True, False])
def test_a_crash_after_the_claim_goes_on_under_the_same_transaction(
    made: Made, tmp_path: Path, pacs: Pacs, *, answered: bool
) -> None:
    files = series(tmp_path / "b", "WORKLIST-B")
    pacs.store(files)
    made.server.put(ITEM, study_of(files))
    if answered:
        transaction = made.performer.ledger.note(ITEM, study_of(files), 1.0)
        with Workitems(made.performer.pacs, made.performer.rules) as service:
            assert service.claim(ITEM, transaction)
    else:
        made.server.claims_unanswered = 1
        made.performer.look()
    assert made.server.state(ITEM) == "IN PROGRESS"
    made.run()
    assert made.server.state(ITEM) == "COMPLETED"


def test_what_somebody_else_claimed_or_took_back_is_left_alone(
    made: Made, tmp_path: Path, pacs: Pacs
) -> None:
    files = series(tmp_path / "c", "WORKLIST-C")
    pacs.store(files)
    made.server.put(ITEM, study_of(files))
    made.performer.ledger.note(ITEM, study_of(files), 1.0)  # killed before the claim was sent
    with Workitems(made.performer.pacs, made.performer.rules) as service:
        assert service.claim(ITEM, uid("their transaction"))
        assert not service.claim(ITEM, uid("ours"))
        assert not service.complete(ITEM, uid("ours"), (), 0.0)
    made.run()
    assert made.server.state(ITEM) == "IN PROGRESS"
    assert made.server.held_by[ITEM] == uid("their transaction")
    assert made.performer.ledger.open() == ()
    assert made.performer.arrivals.listed() == ()


@pytest.mark.parametrize("why", ["no study", "no image", "not scored"])
def test_what_cannot_be_performed_is_given_up_with_the_reason(
    made: Made, tmp_path: Path, pacs: Pacs, why: str
) -> None:
    files = series(tmp_path / "d", f"WORKLIST-{why}", blank=True)
    if why == "not scored":
        pacs.store(files)
    made.server.put(ITEM, "" if why == "no study" else study_of(files))
    made.run()
    assert made.server.state(ITEM) == "CANCELED"
    (progress,) = made.server.items[ITEM].ProcedureStepProgressInformationSequence
    said = {
        "no study": "names not exactly one study",
        "no image": "no image of the study",
        "not scored": "BLANK",
    }
    assert said[why] in progress.ReasonForCancellation


def test_a_worklist_that_is_away_is_asked_again(made: Made, tmp_path: Path, pacs: Pacs) -> None:
    files = series(tmp_path / "e", "WORKLIST-E")
    pacs.store(files)
    made.server.put(ITEM, study_of(files))
    made.server.away = True
    made.performer.look()
    made.server.away = False
    made.performer.look()
    made.server.away = True
    made.run()  # scored and sent; the word that it is done waits
    assert made.server.state(ITEM) == "IN PROGRESS"
    made.server.away = False
    made.performer.look()
    assert made.server.state(ITEM) == "COMPLETED"


def test_the_listener_looks_by_itself_until_it_is_left(
    made: Made, tmp_path: Path, pacs: Pacs
) -> None:
    files = series(tmp_path / "f", "WORKLIST-F")
    pacs.store(files)
    made.server.put(ITEM, study_of(files))
    rules = made.performer.rules.model_copy(update={"poll_seconds": 0.05})
    listening = made.performer.pacs.listen.model_copy(update={"worklist": rules})
    config = made.performer.pacs.model_copy(update={"listen": listening})
    ledger = tmp_path / "other.db"
    with by_worklist(config, made.performer.folder, ledger, made.performer.arrivals) as where:
        assert where == f"workitems of {made.server.url}"
        deadline = time.monotonic() + 60
        while made.server.state(ITEM) != "COMPLETED" and time.monotonic() < deadline:
            made.post.step(lambda: 1e12)
            time.sleep(0.05)
    assert made.server.state(ITEM) == "COMPLETED"


def test_which_workitems_are_ours_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give label or code"):
        Worklist(url="http://127.0.0.1/rs")
    bare = PacsConfig(route="dicomweb", url="http://127.0.0.1:9/dicom-web")
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        pytest.raises(ConfigurationError, match=r"pacs\.listen\.worklist"),
        by_worklist(bare, tmp_path, tmp_path / "worklist.db", arrivals),
    ):
        pass
