"""`plan`: what a run would cost, before it starts."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from common.config.run_config import RunConfig, load_config, without_privacy
from common.extensions.pinning import pinned
from common.messages.message_header import message_of
from common.messages.wire import Refusal, Standing
from common.platform.errors import ExitCode, Unreachable, WardroundError
from server.cli.plan_display import plan_frame
from server.enrolment.registry import Enrolment
from server.files.folder import Folder
from server.planning.forecast import forecast
from server.service.advice import nobody_accepted
from server.service.operator_client import Operator, Refused


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What came of asking the sites."""

    answers: tuple[Standing | Refusal, ...] = ()
    silent: tuple[str, ...] = ()
    why_not: str = ""  # why no site was asked; empty where they were
    stops: tuple[str, ...] = ()  # what of that would stop the run


def show_plan(
    folder: Folder, path: Path, *, as_json: bool, seed: int = 0, without: bool = False
) -> ExitCode:
    """Print the forecast; RUN_FAILED when something would stop the run.

    `without` leaves the privacy section out, as `run --without-privacy` does.
    """
    run = pinned(load_config(path))
    if without:
        run = without_privacy(run)
    asked = _asked(folder, run, seed)
    plan = forecast(run, asked.answers, _accepted(folder))
    plan = replace(
        plan, not_asked=asked.why_not or plan.not_asked, stops=(*asked.stops, *plan.stops)
    )
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(plan.to_json(), allow_nan=False))
    else:
        Console().print(plan_frame(plan))
    if asked.silent:
        Console(stderr=True).print(
            f"No answer yet from {', '.join(asked.silent)}: a site reads its images the first time "
            "that it is asked. Plan again in a while."
        )
    return ExitCode.RUN_FAILED if plan.stops else ExitCode.DONE


def _asked(folder: Folder, config: RunConfig, seed: int) -> _Asked:
    """Return what connected sites say, and who is silent, or why nobody was asked."""
    if not folder.settings.is_file():
        return _Asked(why_not="there is no coordinator here (wardround-coordinator init)")
    try:
        with closing(Operator(folder)) as operator:
            Console(stderr=True).print("Asking the sites: a minute or so at most.")
            headers, silent = operator.plan(config.to_yaml(), seed)
    except Unreachable:
        why = "the service does not run (wardround-coordinator start)"
        return _Asked(why_not=why, stops=_stops_without_service(folder))
    except Refused as error:
        if error.exit_code != ExitCode.RUN_FAILED:
            raise
        return _Asked(why_not="there is no site to ask", stops=(str(error),))
    said = [message_of(header, {}) for header in headers]
    answers = tuple(answer for answer in said if isinstance(answer, Standing | Refusal))
    if not answers and not silent:
        return _Asked(why_not="no site is connected", stops=(_nobody_connected(folder),))
    why = "" if answers else "no site has answered"
    return _Asked(answers=answers, silent=tuple(silent), why_not=why)


def _nobody_connected(folder: Folder) -> str:
    accepted = [s.name for s in Enrolment(folder.enrolment).sites() if s.state == "accepted"]
    return (
        f"No site is connected: the admin of {' and of '.join(accepted)} types wardround-site "
        "start (where it runs: wardround-site doctor)."
    )


def _stops_without_service(folder: Folder) -> tuple[str, ...]:
    """Return what would stop the run as soon as the service does run."""
    sites = Enrolment(folder.enrolment).sites() if folder.enrolment.is_file() else ()
    accepted = any(site.state == "accepted" for site in sites)
    return () if accepted else (nobody_accepted(sites),)


def _accepted(folder: Folder) -> int:
    """Return how many sites belong; 0 where there is no coordinator to ask."""
    if not folder.enrolment.is_file():
        return 0
    try:
        return sum(site.state == "accepted" for site in Enrolment(folder.enrolment).sites())
    except WardroundError:
        return 0
