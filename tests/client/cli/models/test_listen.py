from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from client.inference.arrivals import score_and_send
from client.inference.arrivals.purge import forget_patients
from client.inference.arrivals.queue import ArrivalQueue
from client.inference.arrivals.score_and_send import Post
from client.pacs.received_file import Landed
from client.pacs.receivers import deliver_everywhere as receivers
from client.pacs.sending.delivery import Delivered, State
from client.results.writing import Result
from client.site.home import Home
from client.site.pacs_section import Listening, PacsConfig
from client.site.results_section import ResultReceivers
from client.site.withdrawals import writing
from common.platform.errors import StateDamaged, Unreachable
from tests.client.pacs.listener import series, study_of, volumes
from tests.client.pacs.receivers.hl7_receiver import ris
from tests.client.small_models import model_of, stirred

PACS = PacsConfig(route="dicomweb", url="http://127.0.0.1:1/dicom-web")


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Made:
    """A listener without a process, whose PACS is what the test says."""

    home: Home
    clock: Clock
    arrivals: ArrivalQueue
    post: Post
    scored: list[int] = field(default_factory=list)  # images of each study that was scored
    sent: list[Sequence[Result]] = field(default_factory=list)

    def come(self, files: Sequence[Path]) -> None:
        for path in files:
            came(self.arrivals, path, self.clock())
        self.clock.seconds += 2

    def run(self) -> None:
        while self.post.step(self.clock):
            pass

    def only(self) -> tuple[str, str]:
        (one,) = self.arrivals.listed()
        return one.state, one.told


def came(arrivals: ArrivalQueue, path: Path, now: float) -> bool:
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True)
    landed = Landed(
        path=path,
        study=header.StudyInstanceUID,
        series=header.SeriesInstanceUID,
        instance=header.SOPInstanceUID,
        size=path.stat().st_size,
    )
    return arrivals.came(landed, hashlib.sha256(path.read_bytes()).hexdigest(), now, now + 1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    home = Home(tmp_path / "home")
    arrivals = ArrivalQueue(home.arrivals)
    config = volumes()
    post = Post(
        home=home,
        model=model_of(config, stirred(config)),
        arrivals=arrivals,
        pacs=PACS,
        send=True,
        rules=Listening(settle_seconds=1.0, keep_hours=1.0, give_up_hours=1.0),
    )
    found = Made(home, Clock(), arrivals, post)
    score = score_and_send.score_study

    def counted(files: Sequence[Path], *rest: object) -> object:
        found.scored.append(len(files))
        return score(files, *rest)  # type: ignore[arg-type]

    def delivered(results: Sequence[Result], _pacs: PacsConfig) -> tuple[Delivered, ...]:
        found.sent.append(results)
        return tuple(
            Delivered(result=r, state=State.STORED) for r in results if r.sop_instance is not None
        )

    monkeypatch.setattr(score_and_send, "score_study", counted)
    monkeypatch.setattr(receivers, "deliver", delivered)
    monkeypatch.setattr(score_and_send, "missing", lambda *_: "")
    return found


def test_a_study_is_scored_once_and_sent_once(made: Made, tmp_path: Path) -> None:
    files = series(tmp_path / "a", "A")
    made.come(files)
    made.run()
    assert made.only() == ("done", "")
    assert made.scored == [8]
    assert len(made.sent) == 1
    made.come(files)  # sent again, as it was
    made.run()
    assert made.scored == [8]


def test_results_that_a_crash_left_unsent_are_sent_and_not_made_anew(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = receivers.deliver

    def killed(*_: object) -> tuple[Delivered, ...]:
        raise KeyboardInterrupt

    made.come(series(tmp_path / "a", "A"))
    monkeypatch.setattr(receivers, "deliver", killed)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert made.only()[0] == "written"
    monkeypatch.setattr(receivers, "deliver", deliver)
    made.run()
    assert made.only()[0] == "done"
    assert made.scored == [8]
    kinds = [result.kind.value for result in made.sent[0]]
    assert sorted(kinds) == ["capture", "diagnostic-report", "report"]


def test_a_pacs_that_cannot_be_asked_or_reached_is_waited_for(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> str:
        message = "The PACS does not answer."
        raise Unreachable(message)

    made.come(series(tmp_path / "a", "A"))
    missing, deliver = score_and_send.missing, receivers.deliver
    monkeypatch.setattr(score_and_send, "missing", away)
    for _ in range(40):  # longer than give_up_hours: nobody said that anything is missing
        made.run()
        made.clock.seconds += 300
    assert made.only()[0] == "arriving"
    assert "does not answer" in made.only()[1]
    assert made.scored == []
    monkeypatch.setattr(score_and_send, "missing", missing)
    monkeypatch.setattr(receivers, "deliver", away)
    made.run()
    assert made.only()[0] == "written"
    monkeypatch.setattr(receivers, "deliver", deliver)
    made.clock.seconds += 300
    made.run()
    assert made.only()[0] == "done"
    assert made.scored == [8]


def test_what_never_becomes_whole_is_listed_and_more_images_revive_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = series(tmp_path / "a", "A")
    made.come(files[:7])
    monkeypatch.setattr(score_and_send, "missing", lambda *_: "7 images came, the PACS has 8")
    for _ in range(20):
        made.run()
        made.clock.seconds += 300
    assert made.only()[0] == "failed"
    assert "7 images came, the PACS has 8" in made.only()[1]
    assert made.scored == []
    monkeypatch.setattr(score_and_send, "missing", lambda *_: "")
    made.come(files[7:])
    made.run()
    assert made.only()[0] == "done"
    assert made.scored == [8]


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (OSError(28, "No space left on device"), "arriving"),
        (ZeroDivisionError("a fault of ours"), "failed"),
        (StateDamaged("a file is damaged"), "failed"),
    ],
)
def test_no_fault_of_one_study_stops_the_next(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, state: str
) -> None:
    write = score_and_send.write_results

    def broken(score: object, folder: Path) -> tuple[Result, ...]:
        if score.sources[0].parent.name == "a":  # type: ignore[attr-defined]
            raise fault
        return write(score, folder)  # type: ignore[arg-type]

    monkeypatch.setattr(score_and_send, "write_results", broken)
    made.come(series(tmp_path / "a", "A"))
    made.come(series(tmp_path / "b", "BB"))
    made.run()
    assert [one.state for one in made.arrivals.listed()] == [state, "done"]


def test_an_image_that_comes_while_a_study_is_scored_is_not_lost(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, write = series(tmp_path / "a", "A"), score_and_send.write_results
    late: list[Callable[[], None]] = [lambda: made.come(files[7:])]

    def slow(*arguments: object) -> tuple[Result, ...]:
        if late:
            late.pop()()
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(score_and_send, "write_results", slow)
    made.come(files[:7])
    made.run()
    assert made.scored == [7, 8]
    assert made.only() == ("done", "")


def test_a_withdrawn_patient_is_not_scored_and_what_arrived_is_gone(
    made: Made, tmp_path: Path
) -> None:
    folder = made.home.arrived / study_of(series(tmp_path / "x", "A"))
    made.come(series(folder / "1", "A"))
    made.home.folder.mkdir(exist_ok=True)
    with writing(made.home.withdrawals) as log:
        log.withdraw("A")
    made.run()
    assert made.scored == []
    assert made.arrivals.listed() == ()
    assert not folder.exists()


def test_a_patient_who_is_withdrawn_while_a_study_is_scored_has_no_result(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = score_and_send.write_results

    def slow(*arguments: object) -> tuple[Result, ...]:
        found = write(*arguments)  # type: ignore[arg-type]
        with writing(made.home.withdrawals) as log:
            log.withdraw("A")
        return found

    monkeypatch.setattr(score_and_send, "write_results", slow)
    made.come(series(tmp_path / "a", "A"))
    made.run()
    assert made.arrivals.listed() == ()
    assert made.sent == []
    assert [path for path in made.home.results.rglob("*") if path.is_file()] == []


def test_no_byte_of_a_forgotten_study_stands_in_the_queue(made: Made, tmp_path: Path) -> None:
    files = series(tmp_path / "x", "A")
    study = study_of(files)
    made.come(files)
    assert any(study.encode() in path.read_bytes() for path in queue_files(made.home))
    forget_patients(made.home, frozenset({"A"}))
    assert not [path for path in queue_files(made.home) if study.encode() in path.read_bytes()]


def queue_files(home: Home) -> list[Path]:
    """Return the queue's file and what SQLite keeps beside it."""
    return list(home.arrivals.parent.glob(f"{home.arrivals.name}*"))


def test_what_arrived_of_a_patient_can_be_forgotten(made: Made, tmp_path: Path) -> None:
    one = made.home.arrived / study_of(series(tmp_path / "x", "A"))
    made.come(series(one / "1", "A"))
    made.come(series(tmp_path / "watched", "BB"))
    assert forget_patients(made.home, frozenset({"A", "BB"})) == 2
    assert made.arrivals.listed() == ()
    assert not one.exists()
    assert len(list((tmp_path / "watched").iterdir())) == 8, "the hospital's own files stay"


def test_what_was_dealt_with_is_removed_after_keep_hours(made: Made, tmp_path: Path) -> None:
    folder = made.home.arrived / study_of(series(tmp_path / "x", "A"))
    made.come(series(folder / "1", "A"))
    made.run()
    assert folder.exists()
    made.clock.seconds += 3700
    made.run()
    assert made.arrivals.listed() == ()
    assert not folder.exists()


def test_a_queue_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "arrivals.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StateDamaged, match="Remove it"):
        ArrivalQueue(tmp_path / "arrivals.db")


@pytest.mark.processes
def test_a_receiver_that_is_away_is_waited_for_and_told_once(made: Made, tmp_path: Path) -> None:
    with ris() as receiver:
        made.post = replace(
            made.post,
            pacs=None,
            receivers=ResultReceivers.model_validate(
                {"hl7": {"host": "127.0.0.1", "port": receiver.port}}
            ),
        )
        receiver.code = "AE"
        made.come(series(tmp_path / "a", "A"))
        made.run()
        assert made.only()[0] == "written"
        assert "answers with an error (AE)" in made.only()[1]
        receiver.code = "AA"
        made.clock.seconds += 300
        made.run()
        assert made.only()[0] == "done"
        made.clock.seconds += 300
        made.run()
    assert len(receiver.messages) == 2
    assert len(receiver.filed) == 1
