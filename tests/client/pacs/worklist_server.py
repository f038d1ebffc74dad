"""A UPS-RS worklist on loopback that keeps to the standard (PS3.18 11, PS3.4 CC.1.1 and CC.2.5).

States change as table CC.1.1-2 says, by whoever has the Transaction UID alone; a workitem is
completed only with what its final state requires (PS3.4 table CC.2.5-3).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset

from client.results.codes import own
from client.results.equipment import coded


@dataclass
class WorklistServer:
    """What the worklist holds and was told."""

    port: int = 0
    items: dict[str, Dataset] = field(default_factory=dict)
    held_by: dict[str, str] = field(default_factory=dict)  # workitem -> Transaction UID
    claims_unanswered: int = 0  # so many claims are carried out without an answer
    ignores_search: bool = False
    away: bool = False

    @property
    def url(self) -> str:
        """The root of UPS-RS."""
        return f"http://127.0.0.1:{self.port}/rs"

    def put(self, uid: str, study: str, label: str = "wardround") -> None:
        """Schedule a workitem."""
        one, inputs = Dataset(), Dataset()
        one.SOPInstanceUID, one.ProcedureStepState = uid, "SCHEDULED"
        one.WorklistLabel, one.InputReadinessState = label, "READY"
        one.ScheduledWorkitemCodeSequence = [coded(own("score"))]
        inputs.StudyInstanceUID = study
        one.InputInformationSequence = [inputs]
        self.items[uid] = one

    def state(self, uid: str) -> str:
        """Return the state of a workitem."""
        return str(self.items[uid].ProcedureStepState)

    def listed(self, asked: dict[str, list[str]]) -> tuple[int, bytes]:
        """Return status and content of a search."""
        names = [n for n in ("ProcedureStepState", "WorklistLabel") if n in asked]
        matching = [
            one
            for one in self.items.values()
            if self.ignores_search or all(one.get(n) == asked[n][0] for n in names)
        ]
        if self.away or not matching:
            return (503 if self.away else 204), b""
        return 200, json.dumps([one.to_json_dict() for one in matching]).encode()

    def told(self, uid: str, said: Dataset, act: Callable[[str, Dataset], int]) -> int | None:
        """Carry out a change; return the HTTP status, None where there is no answer."""
        if self.away:
            return 503
        status = act(uid, said) if uid in self.items else 404
        if said.get("ProcedureStepState") == "IN PROGRESS" and self.claims_unanswered:
            self.claims_unanswered -= 1
            return None
        return status

    def change(self, uid: str, said: Dataset) -> int:
        """Change a state; return the HTTP status."""
        one, wanted = self.items[uid], said.ProcedureStepState
        now, owner = one.ProcedureStepState, self.held_by.get(uid)
        if wanted == "IN PROGRESS":
            if now != "SCHEDULED":
                return 409
            self.held_by[uid] = said.TransactionUID
        elif wanted not in {"COMPLETED", "CANCELED"} or now != "IN PROGRESS":
            return 409
        elif owner != said.TransactionUID:
            return 400
        elif wanted == "COMPLETED":
            performed = one.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
            needed = (
                "PerformedStationNameCodeSequence",
                "PerformedWorkitemCodeSequence",
                "PerformedProcedureStepStartDateTime",
                "PerformedProcedureStepEndDateTime",
            )
            if not all(performed[0].get(name) for name in needed):
                return 400
            if "OutputInformationSequence" not in performed[0]:
                return 400
        one.ProcedureStepState = wanted
        return 200

    def update(self, uid: str, transaction: str, said: Dataset) -> int:
        """Update a workitem; return the HTTP status."""
        one = self.items[uid]
        if one.ProcedureStepState != "IN PROGRESS":
            return 409
        if self.held_by[uid] != transaction:
            return 400
        assert "ProcedureStepState" not in said
        one.update({e.tag: e for e in said if e.keyword != "TransactionUID"})
        return 200


@contextmanager
def worklist_server() -> Iterator[WorklistServer]:
    """Serve an empty worklist until left."""
    found = WorklistServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            status, content = found.listed(asked)
            self._answer(status, content)

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            transaction = parse_qs(parts.query)["transaction"][0]
            self._tell(lambda uid, said: found.update(uid, transaction, said))

        def do_PUT(self) -> None:
            assert self.path.endswith("/state")
            self._tell(found.change)

        def _tell(self, act: Callable[[str, Dataset], int]) -> None:
            assert self.headers["Content-Type"] == "application/dicom+json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = Dataset.from_json(body[0])
            uid = urlsplit(self.path).path.removeprefix("/rs/workitems/").removesuffix("/state")
            status = found.told(uid, said, act)
            if status is None:
                self.close_connection = True
            else:
                self._answer(status)

        def _answer(self, status: int, content: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
