"""`doctor` and `service`: whether the site is ready, and a unit that starts it with its machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import typer

from client.node.systemd import SiteUnit, how_to_install, unit
from client.readiness.doctor import examine
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say
from common.platform.errors import ExitCode
from common.platform.systemd import in_a_persons_home, installed

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


def write_service(home: Home, user: str, out: Path | None) -> None:
    """Print the unit, or write it and say how it is installed."""
    config = load_site_config(home.site_yaml)
    program = installed("wardround-site")
    service = SiteUnit(program=program, home=home.folder, user=user, config=config)
    text = unit(service)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    say(f"Wrote {out}.")
    if in_a_persons_home(home.folder) and user != home.folder.owner():
        say(f"The user {user} cannot enter {home.folder}. Move it, and write the unit again:")
        say(f"  mv {home.folder} /var/lib/wardround")
        say("  wardround-site service --home /var/lib/wardround --out FILE")
        return
    say("As root, type:")
    for line in how_to_install(service, out.absolute()):
        say(f"  {line}")
