from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from common.platform.logs import AT_ONCE, log, open_logs


def lines(folder: Path) -> list[dict[str, object]]:
    text = (folder / "log" / "daemon.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_text_for_people_and_json_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        log("client.node.daemon").info(
            "connected", coordinator="10.0.0.1:8443", why="a b", seconds=1.23456
        )
        shown = capsys.readouterr().err
        assert shown.split(" ", 1)[1] == (
            "connected  coordinator=10.0.0.1:8443  why='a b'  seconds=1.235\n"
        )
        (line,) = lines(tmp_path)
        assert str(line.pop("at")).endswith("+00:00")
        assert line == {
            "level": "info",
            "logger": "client.node.daemon",
            "event": "connected",
            "coordinator": "10.0.0.1:8443",
            "why": "a b",
            "seconds": 1.23456,
        }


def test_with_json_every_line_on_standard_error_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    with open_logs(None, json=True, name="daemon"):
        log("server.service.serve").warning("waiting", loss=float("nan"), sites=("a", "b"))
        logging.getLogger("server.rounds.run_state").warning("going back %d", 3)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["loss"], first["sites"]) == ("warning", "nan", ["a", "b"])
    assert (second["event"], second["logger"]) == ("going back 3", "server.rounds.run_state")


def test_a_line_that_may_leave_holds_no_path_uid_or_address_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        try:
            raise FileNotFoundError(2, "gone", "/data/MUSTER^MAX/a.dcm")
        except FileNotFoundError as error:
            log("client.node.request_handler").exception(
                "cannot read %s",
                error,
                upstream=True,
                files=[Path("/data/MUSTER^MAX")],
                study={"1.2.840.10008.1.2": "MUSTER@klinik.example"},
            )
        (line,) = lines(tmp_path)
        assert line["error"] == "FileNotFoundError"
        assert line["files"] == ["[path]"]
        assert line["study"] == {"[uid]": "[address]"}
        everything = json.dumps(line) + capsys.readouterr().err
        assert all(canary not in everything for canary in ("MUSTER", "/data", "1.2.840"))


def test_a_local_line_may_hold_paths_and_the_traceback(tmp_path: Path) -> None:
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        try:
            raise ValueError("odd")
        except ValueError:
            log("client.node.request_handler").exception("cannot read", path=Path("/data/a.dcm"))
        (line,) = lines(tmp_path)
        assert line["path"] == "/data/a.dcm"
        assert "ValueError: odd" in str(line["exception"])


def test_a_value_cannot_forge_a_line_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        log("client.node.request_handler").info(
            "site said\n12:00:00 all is well", name="x\x1b[31m\ny"
        )
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert "\x1b" not in shown


def test_notices_of_libraries_are_hidden_and_their_errors_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        flower = logging.getLogger("flwr")
        flower.setLevel(logging.DEBUG)  # as Flower does when it is loaded
        flower.addHandler(logging.StreamHandler(sys.stderr))
        uvicorn = logging.getLogger("uvicorn.error")
        flower.info("hello")
        uvicorn.warning("started")
        logging.getLogger("alembic").info("migrating")
        assert capsys.readouterr().err == ""
        flower.error("broken")
        uvicorn.error("failed")
        assert [line[9:] for line in capsys.readouterr().err.splitlines()] == [
            "error: broken",
            "error: failed",
        ]


def test_a_log_file_is_its_owners_alone_and_is_begun_anew_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.platform.logs._LARGEST_FILE", 400)
    with open_logs(tmp_path / "log", json=False, name="daemon"):
        for number in range(40):
            log("client.node.daemon").info("round", number=number)
    files = sorted((tmp_path / "log").iterdir())
    assert [path.name for path in files] == [
        "daemon.jsonl",
        *(f"daemon.jsonl.{n}" for n in range(1, 6)),
    ]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert all(path.stat().st_size <= 400 for path in files)


@pytest.mark.processes
def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    program = f"""
import pathlib, resource, signal
from common.platform.logs import log, open_logs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
with open_logs(pathlib.Path({str(tmp_path)!r}), json=False, name="daemon"):
    for number in range(20):
        log("client.node.daemon").info("round", number=number)
print("went on")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "went on\n", done.stderr
    assert done.stderr.count("Cannot write the log") == 1
    assert "number=19" in done.stderr
    written = (tmp_path / "daemon.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["number"] for line in written] == [0, 1]


def test_closing_puts_logging_back_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), list(logging.getLogger("flwr").filters))
    open_logs(None, json=False, name="daemon").close()
    assert (root.level, root.handlers, logging.getLogger("flwr").filters) == before


def test_a_warning_that_comes_again_and_again_is_counted(tmp_path: Path) -> None:
    with open_logs(tmp_path, json=True, name="daemon"):
        for number in range(1000):
            log("client.node.daemon").warning("link is down", number=number)
            logging.getLogger("asyncio").error(f"accept failed {number}")  # noqa: G004 - as asyncio's
        log("client.node.daemon").warning("something else")
        for _ in range(100):
            log("client.node.daemon").info("a round")
    found = [json.loads(line) for line in (tmp_path / "daemon.jsonl").read_text().splitlines()]
    said = Counter(str(line["event"]).split(" failed")[0] for line in found)
    assert said == {
        "link is down": AT_ONCE + 1,
        "accept": AT_ONCE + 1,
        "something else": 1,
        "a round": 100,
    }
    last = [line for line in found if line["event"] == "link is down"][-1]
    assert last["number"] == 999
    assert last["more"] == 1000 - AT_ONCE - 1
    assert any("more like this" in str(line["event"]) for line in found)


def test_what_strangers_do_is_logged_apart_and_pushes_nothing_out(tmp_path: Path) -> None:
    with open_logs(tmp_path, json=True, name="service"):
        log("server.service.serve").info("listening")
        for number in range(50):
            log(f"server.place{number}").warning("refused", stranger=True, why="x" * 100_000)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "service-strangers.jsonl",
        "service-strangers.jsonl.1",
        "service.jsonl",
    ]
    assert sum(path.stat().st_size for path in tmp_path.glob("*strangers*")) < 3 * 2**20
    assert "listening" in (tmp_path / "service.jsonl").read_text()
    assert "refused" not in (tmp_path / "service.jsonl").read_text()
