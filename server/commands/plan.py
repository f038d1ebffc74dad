"""wardround-coordinator plan: what a run would cost, before it starts."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from common.config import load_config
from common.errors import ExitCode, WardroundError
from server.enrolment import Enrolment
from server.folder import Folder
from server.plan_display import plan_frame
from server.planning import forecast


def show_plan(folder: Folder, config: Path, *, as_json: bool) -> ExitCode:
    """Print the forecast; RUN_FAILED when something would stop the run."""
    plan = forecast(load_config(config), (), _accepted(folder))
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(plan.to_json(), allow_nan=False))
    else:
        Console().print(plan_frame(plan))
    return ExitCode.RUN_FAILED if plan.stops else ExitCode.DONE


def _accepted(folder: Folder) -> int:
    """Return how many sites belong; 0 where there is no coordinator to ask."""
    if not folder.enrolment.is_file():
        return 0
    try:
        return sum(site.state == "accepted" for site in Enrolment(folder.enrolment).sites())
    except WardroundError:
        return 0
