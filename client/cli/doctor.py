"""`doctor`: whether the site is ready, and how to mend what is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Literal

from client.readiness.doctor import examine
from client.site.home import Home
from client.site.terminal import as_text, say
from common.platform.errors import ExitCode

_MARKS = {"ok": "ok", "note": "note", "wrong": "WRONG"}


def show_findings(home: Home, part: Literal["site", "pacs"], *, as_json: bool) -> ExitCode:
    """Print each check as it ends; RUN_FAILED when something is to be mended."""
    faults = 0
    for finding in examine(home, part):
        faults += finding.state == "wrong"
        if as_json:
            say(json.dumps(asdict(finding)))
            continue
        say(f"{_MARKS[finding.state]:<6} {finding.check:<12} {as_text(finding.detail)}")
        if finding.fix:
            say(f"{'':<19} -> {as_text(finding.fix)}")
    if not as_json:
        say(f"{faults} to mend." if faults else "Ready.")
    return ExitCode.RUN_FAILED if faults else ExitCode.DONE
