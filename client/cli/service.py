"""`service`: a systemd unit that starts the site with its machine."""

from __future__ import annotations

from pathlib import Path

import typer

from client.node.systemd import SiteUnit, how_to_install, unit
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import say
from common.platform.systemd import in_a_persons_home, installed


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
