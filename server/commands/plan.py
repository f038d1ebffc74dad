"""wardround-coordinator plan: what a run would cost, before it starts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from rich.console import Console

from common.config import RunConfig, load_config
from common.errors import ExitCode, Unreachable, WardroundError
from common.message_headers import message_of
from common.wire import Refusal, Standing
from server.enrolment import Enrolment
from server.folder import Folder
from server.operator_client import Operator
from server.plan_display import plan_frame
from server.planning import forecast


def show_plan(folder: Folder, config: Path, *, as_json: bool) -> ExitCode:
    """Print the forecast; RUN_FAILED when something would stop the run."""
    run = load_config(config)
    answers, silent = _asked(folder, run)
    plan = forecast(run, answers, _accepted(folder))
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(plan.to_json(), allow_nan=False))
    else:
        Console().print(plan_frame(plan))
    if silent:
        Console(stderr=True).print(
            f"No answer yet from {', '.join(silent)}: a site reads its images the first time that "
            "it is asked. Plan again in a while."
        )
    return ExitCode.RUN_FAILED if plan.stops else ExitCode.DONE


def _asked(folder: Folder, config: RunConfig) -> tuple[list[Standing | Refusal], list[str]]:
    """Return what connected sites say, and who is silent; nobody where no service runs."""
    if not folder.settings.is_file():
        return [], []
    try:
        with closing(Operator(folder)) as operator:
            headers, silent = operator.plan(config.to_yaml())
    except Unreachable:
        return [], []
    said = [message_of(header, {}) for header in headers]
    return [answer for answer in said if isinstance(answer, Standing | Refusal)], silent


def _accepted(folder: Folder) -> int:
    """Return how many sites belong; 0 where there is no coordinator to ask."""
    if not folder.enrolment.is_file():
        return 0
    try:
        return sum(site.state == "accepted" for site in Enrolment(folder.enrolment).sites())
    except WardroundError:
        return 0
