"""`listen`: score what arrives, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from client.inference.inputs import check_bundle
from client.site.home import Home
from client.site.pacs_section import Listening, PacsConfig
from client.site.plain_text import ago
from client.site.results_section import ResultReceivers
from client.site.site_config import allowed_extensions, load_site_config
from client.site.terminal import as_text, say, table
from common.platform.errors import ConfigurationError, ExitCode, RunFailed

if TYPE_CHECKING:
    from client.inference.arrivals.queue import ArrivalQueue

#: How often the queue is looked at while there is nothing to do, seconds.
_LOOK_SECONDS = 0.5
_WORDS = {
    "arriving": "arriving",
    "written": "scored, to be sent",
    "done": "done",
    "failed": "FAILED",
}


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """What was asked for on the command line."""

    bundle: Path
    folder: Path | None  # a folder that studies are put into; None: they come by C-STORE
    send: bool
    worklist: bool = False  # studies that workitems ask for, fetched from the PACS


def listen(home: Home, wishes: ListenOptions) -> ExitCode:
    """Score studies as they arrive, until Ctrl-C or SIGTERM; the study at hand is finished."""
    pacs, receivers = _receivers(home, wishes)
    check_bundle(wishes.bundle)
    # Imported here: torch takes its time, and a wrong option should not wait for it.
    from client.inference.arrivals.queue import ArrivalQueue
    from client.inference.arrivals.score_and_send import Post
    from client.inference.local import local_of
    from client.inference.trained_model import open_model
    from client.site.daemon_process import stopping
    from common.platform.logs import log, open_logs

    rules = pacs.listen if pacs is not None else Listening()
    model = open_model(wishes.bundle, allowed_extensions(home.site_yaml))
    local_of(home, model)  # says now, and not of the first study, that the table is missing
    with ExitStack() as stack:
        stack.enter_context(_alone(home))
        stack.enter_context(open_logs(home.log, json=False, name="listener"))
        arrivals = stack.enter_context(ArrivalQueue(home.arrivals))
        stop = stack.enter_context(stopping())
        where = stack.enter_context(_way(home, wishes, pacs, arrivals))
        lines = log(__name__)
        lines.info("listening", where=where, model=model.name.name, sends=wishes.send)
        post = Post(
            home=home,
            model=model,
            arrivals=arrivals,
            pacs=pacs,
            send=wishes.send,
            rules=rules,
            receivers=receivers,
        )
        while not stop.is_set():
            if not post.step():
                stop.wait(_LOOK_SECONDS)
        lines.info("stopped listening; what waits is gone on with at the next start")
    return ExitCode.DONE


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the home's queue: two listeners would score the same studies."""
    from client.site.daemon_process import locked

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home.folder / "listening.lock"))
        except RunFailed as error:
            message = (
                f"Another `wardround-site listen` works in {home.folder} already. Stop it first, "
                "or give another --home."
            )
            raise RunFailed(message) from error
        yield


def _way(
    home: Home, wishes: ListenOptions, pacs: PacsConfig | None, arrivals: ArrivalQueue
) -> AbstractContextManager[str]:
    from client.inference.arrivals.intake import by_folder, by_store
    from client.inference.arrivals.worklist import by_worklist

    if wishes.worklist:
        assert pacs is not None  # noqa: S101  # _receivers has seen to it
        return by_worklist(pacs, home.arrived, home.folder / "worklist.db", arrivals)
    if wishes.folder is None:
        assert pacs is not None  # noqa: S101  # _receivers has seen to it
        return by_store(pacs, home.arrived, arrivals)
    rules = pacs.listen if pacs is not None else Listening()

    def refused(path: Path, why: str) -> None:
        say(f"Not used: {as_text(path)}: {why}")

    return by_folder(wishes.folder.absolute(), rules.settle_seconds, arrivals, refused)


def _receivers(home: Home, wishes: ListenOptions) -> tuple[PacsConfig | None, ResultReceivers]:
    """Return the PACS and who else is told; ConfigurationError where what was asked needs one."""
    site = load_site_config(home.site_yaml) if home.site_yaml.exists() else None
    pacs = None if site is None else site.pacs
    receivers = ResultReceivers() if site is None else site.results
    if wishes.worklist and not wishes.send:
        message = (
            "A workitem is done when its results are in the PACS: give --send with --worklist."
        )
        raise ConfigurationError(message)
    if pacs is None and (wishes.folder is None or (wishes.send and not receivers.any)):
        needs = "that results are sent to" if wishes.folder is not None else "that sends studies"
        message = (
            f"{home.site_yaml} names no PACS {needs}. Fill in its section pacs, or give --folder "
            "FOLDER and leave --send out."
        )
        raise ConfigurationError(message)
    return pacs, receivers


def show(home: Home) -> ExitCode:
    """List the studies that arrived, and why those that wait or failed do."""
    if not home.arrivals.exists():
        say("No study has arrived yet. To take them: wardround-site listen --bundle FOLDER")
        return ExitCode.DONE
    from client.inference.arrivals.queue import ArrivalQueue

    with ArrivalQueue(home.arrivals) as arrivals:
        listed = arrivals.listed()
    rows = [("", "study", "images", "since", "")]
    for one in listed:
        since = ago(datetime.fromtimestamp(one.changed, UTC).isoformat())
        state = _WORDS[one.state] + (f": {as_text(one.told)}" if one.told else "")
        rows.append((str(one.number), as_text(one.study), str(one.images), since, state))
    if listed:
        table(rows)
    failed = sum(one.state == "failed" for one in listed)
    say(f"{len(listed)} studies, {failed} of them failed, at {time.strftime('%H:%M')}.")
    return ExitCode.DONE
