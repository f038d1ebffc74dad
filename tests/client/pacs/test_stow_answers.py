"""What servers may answer to STOW-RS (PS3.18 table 10.5.3-1), from a server that says just that."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client.pacs.sending.delivery import State, deliver
from client.results.writing import Result, write_results
from client.site.pacs_section import PacsConfig
from common.platform.errors import WardroundError
from tests.client.scores import diagnosed, ultrasound

pytestmark = pytest.mark.processes


@contextmanager
def answering(status: int, body: bytes) -> Iterator[PacsConfig]:
    """Yield the settings of a server that holds nothing and answers every STOW alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield PacsConfig(route="dicomweb", url=f"http://127.0.0.1:{server.server_port}/rs")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def failed(reason: int, uid: str = "") -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    if uid:
        item["00081155"] = {"vr": "UI", "Value": [uid]}  # type: ignore[dict-item]
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


@pytest.fixture
def results(tmp_path: Path) -> tuple[Result, ...]:
    return write_results(diagnosed(ultrasound(tmp_path / "source")), tmp_path / "out")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (409, failed(0xA700), "no room"),
        (409, failed(0x0122), "does not store objects of this class"),
        (202, failed(0xC000), "cannot understand"),
        (409, b"", "gave no reason"),
        (409, b"<NativeDicomModel/>", "gave no reason"),
        (400, b"no", "status 400"),
        (413, b"", "larger than the PACS takes"),
        (415, b"", "takes no DICOM files"),
        (503, b"", "busy"),
        (507, b"", "no room"),
        (599, b"", "status 599"),
    ],
)
def test_a_refusal_is_said_of_the_object_and_explained(
    results: tuple[Result, ...], status: int, body: bytes, says: str
) -> None:
    with answering(status, body) as pacs:
        delivered = deliver(results, pacs)
    assert [one.state for one in delivered] == [State.FAILED] * 2
    assert all(says in one.detail for one in delivered)


def test_what_is_said_to_be_stored_and_is_not_there_counts_as_failed(
    results: tuple[Result, ...],
) -> None:
    with answering(200, b"{}") as pacs:
        delivered = deliver(results, pacs)
    assert [one.state for one in delivered] == [State.FAILED] * 2
    assert "does not have it" in delivered[0].detail


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_of_the_whole_pacs_is_an_error(results: tuple[Result, ...], status: int) -> None:
    with answering(status, b"") as pacs, pytest.raises(WardroundError, match=r"Ask|Compare"):
        deliver(results, pacs)
