"""A run waits for a SuperLink that is away, however long, and ends when it is told to."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from flwr.proto.runtime_pb2 import GetNodesResponse

from common.platform.errors import LinkDown, RunFailed, WardroundError
from server.transport import runtime as of_runtime
from server.transport.runtime import Runtime
from tests.server.coordinator import made


@pytest.mark.processes
def test_a_superlink_that_is_away_for_a_day_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine sleeps: calls are not answered in time, and later they are."""
    folder, _ = made(tmp_path)
    calls = Runtime("127.0.0.1:1", folder.ca.read_text(encoding="ascii"), "operator", "task")
    slept: list[float] = []
    away = iter([httpx.ReadTimeout("late")] * 50 + [httpx.ConnectError("no")] * 50)

    def nodes(_request: object) -> GetNodesResponse:
        for error in away:
            raise error
        return GetNodesResponse()

    monkeypatch.setattr(of_runtime.time, "sleep", slept.append)
    monkeypatch.setattr(calls._client, "GetNodes", nodes)
    assert calls.nodes() == {}
    assert len(slept) == 100
    assert max(slept) == 2.0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("status", "kind"), [(401, LinkDown), (500, LinkDown), (503, LinkDown), (400, RunFailed)]
)
def test_a_superlink_that_lost_the_run_is_not_one_that_refuses_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[WardroundError]
) -> None:
    """The first passes with another process; the second would be refused again."""
    folder, _ = made(tmp_path)
    calls = Runtime("127.0.0.1:1", folder.ca.read_text(encoding="ascii"), "operator", "task")

    def nodes(_request: object) -> GetNodesResponse:
        request = httpx.Request("POST", "https://127.0.0.1:1")
        answer = httpx.Response(status, text="no", request=request)
        raise httpx.HTTPStatusError("no", request=request, response=answer)

    monkeypatch.setattr(calls._client, "GetNodes", nodes)
    with pytest.raises(WardroundError, match=f"{status} no") as refused:
        calls.nodes()
    assert type(refused.value) is kind
