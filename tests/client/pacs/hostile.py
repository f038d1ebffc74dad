"""A DICOMweb server that answers whatever a test likes, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from pydicom.dataset import FileDataset

from client.site.pacs_section import PacsConfig


@dataclass
class Answer:
    """What is sent; the length is stated, or the connection's end says it."""

    kind: str
    body: bytes
    status: int = 200
    cut_at: int | None = None  # bytes after which the connection is closed


@dataclass
class Hostile:
    """A server with one study of one series."""

    dataset: FileDataset  # one of its images
    stated: int | None  # NumberOfSeriesRelatedInstances
    listed: list[str]  # SOP Instance UIDs
    retrieve: Callable[[str], Answer]  # path -> answer
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def config(self) -> PacsConfig:
        """What a site knows of it."""
        return PacsConfig.model_validate(
            {"route": "dicomweb", "url": f"http://127.0.0.1:{self.port}/rs", "associations": 1}
        )

    def answer(self, path: str) -> Answer:
        """Answer a request."""
        own = self.dataset
        entry = {
            "00100020": {"vr": "LO", "Value": [own.PatientID]},
            "0020000D": {"vr": "UI", "Value": [own.StudyInstanceUID]},
        }
        if path == "/rs/studies":
            return _json([entry])
        series = {
            "0020000E": {"vr": "UI", "Value": [own.SeriesInstanceUID]},
            "00080060": {"vr": "CS", "Value": ["OT"]},
        }
        if path.endswith("/series"):
            if self.stated is not None:
                series["00201209"] = {"vr": "IS", "Value": [self.stated]}
            return _json([entry | series])
        if path.endswith("/instances"):
            return _json([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in self.listed])
        self.asked.append(path)
        return self.retrieve(path)


def multipart(*objects: bytes) -> Answer:
    body = b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % o for o in objects)
    return Answer('multipart/related; type="application/dicom"; boundary=x', body + b"--x--")


def _json(content: object) -> Answer:
    return Answer("application/dicom+json", json.dumps(content).encode())


@contextmanager
def serving(hostile: Hostile) -> Iterator[PacsConfig]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = hostile.answer(urlsplit(self.path).path)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut_at])
            self.close_connection = answer.cut_at is not None

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hostile.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hostile.config
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
