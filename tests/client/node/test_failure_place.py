from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest

from client.node.failure_place import failure_place
from client.node.request_handler import RequestHandler
from client.node.worker import answered
from common.config.run_config import RunConfig
from common.messages.signed_envelope import seal, unseal
from common.messages.wire import Proposal, Refusal, RefusalReason
from common.platform.errors import StateDamaged
from common.platform.sqlite_file import connected
from tests.client.answering import CONFIG


def failed(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - this is what is looked at
        return error
    pytest.fail("it did not fail")


def test_a_failure_is_told_as_its_kind_and_our_line_without_its_message(tmp_path: Path) -> None:
    error = failed(lambda: connected(tmp_path / "DOE^JANE" / "ledger.db").__enter__())
    told = failure_place(error)
    assert told.startswith("Exception at common/platform/sqlite_file.py:")
    assert "DOE" not in told


def test_a_failure_never_tells_a_name_that_other_code_chose() -> None:
    chosen = type("DoeJane19480312", (StateDamaged,), {"__module__": "common.platform.errors"})

    def work() -> None:
        code = compile("raise chosen('x')", "client/doe_jane.py", "exec")
        exec(code, {"chosen": chosen})  # noqa: S102 - what an extension could do

    assert failure_place(failed(work)) == "StateDamaged"


class Failing:
    """A handler that fails as a worker's can, with a patient's name in the message."""

    def answer(self, request: object) -> object:
        del request
        message = "DOE^JANE"
        raise ValueError(message)


@pytest.mark.parametrize(
    ("rule", "private", "tells"),
    [
        ("without_privacy", True, False),
        ("without_privacy", False, True),
        (False, False, False),
        (True, True, True),
    ],
)
def test_the_policy_decides_whether_a_place_leaves(
    *, rule: bool | Literal["without_privacy"], private: bool, tells: bool
) -> None:
    config: RunConfig = CONFIG if private else CONFIG.model_copy(update={"privacy": "none"})
    request = Proposal(run="run", round=0, seed=0, config=config)
    log: list[str] = []
    handler = cast("RequestHandler", Failing())
    no = answered(handler, request, "north", log.append, tell_failures=rule)
    assert isinstance(no, Refusal)
    assert no.reason is RefusalReason.FAILED
    assert no.place.startswith("ValueError at client/node/worker.py:") == tells
    assert bool(no.place) == tells
    assert "DOE^JANE" in log[0]
    sent = seal(no)
    assert unseal(sent.header, sent.frames) == no
    assert b"DOE" not in sent.header.encode()


def test_a_place_of_any_other_form_is_not_read() -> None:
    no = Refusal(run="run", round=0, site="north", reason=RefusalReason.FAILED)
    for text in ("DOE^JANE", "ValueError at /home/doe.py:1", "ValueError at client/a.py:1\n"):
        with pytest.raises(ValueError, match="place"):
            seal(replace(no, place=text))
