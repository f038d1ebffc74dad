"""`sites`: who belongs; accepts and revokes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import cast

import typer
from rich.console import Console

from common.platform.errors import ConfigurationError, Unreachable
from server.enrolment.registry import EnrolledSite, Enrolment
from server.files.folder import Folder
from server.service.operator_client import Json, Operator


def show(folder: Folder, *, every: bool, json: bool) -> None:
    """List sites and open invitations; of keys that are good for nothing only with `every`."""
    found = _overview(folder)
    known = cast("list[Json]", found["sites"])
    belonging = [site for site in known if site["state"] in {"pending", "accepted"}]
    found = {**found, "sites": known if every else belonging}
    if json:
        Console().print_json(data=found)
        return
    sites = cast("list[dict[str, object]]", found["sites"])
    invited = cast("dict[str, int]", found["invited"])
    if not sites and not invited:
        typer.echo("No site yet. Invite one: wardround-coordinator invite SITE")
        _tell_of_others(len(known))
        return
    rows = [("SITE", "STATE", "SINCE", "FINGERPRINT")]
    for site in sites:
        since = _when(cast("float", site["since"]))
        rows.append((str(site["name"]), _state(site), since, str(site["fingerprint"])))
    rows += [(name, "invited", f"until {_when(end)}", "") for name, end in invited.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # never folded: a fingerprint is compared whole
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
    for site in sites:
        if site["state"] == "pending":
            typer.echo(f"{site['name']} waits. {_how_to_accept(str(site['name']))}")
    _tell_of_others(len(known) - len(sites))


def _tell_of_others(number: int) -> None:
    if number:
        typer.echo(
            f"Not shown: {number} of keys that were revoked or replaced, or whose sites have "
            "left; wardround-coordinator sites --all"
        )


def accept(folder: Folder, given: Sequence[str], fingerprint: str | None) -> None:
    """Accept pending sites whose fingerprints were compared: NAME, or NAME=FINGERPRINT."""
    pairs = [_pair(text, fingerprint) for text in given]
    if fingerprint is not None and len(pairs) > 1:
        message = "--fingerprint is one site's; for several give SITE=SHA256:... each."
        raise ConfigurationError(message)
    for name, shown in pairs:
        if shown is None:
            raise ConfigurationError(_compare_first(folder, name))
    for name, shown in pairs:
        _accept_one(folder, name, str(shown))


def _accept_one(folder: Folder, name: str, shown: str) -> None:
    _either(
        folder,
        lambda service: service.accept(name, shown),
        lambda enrolment: enrolment.accept(name, shown),
    )
    typer.echo(f"{name} is accepted. It connects when its daemon runs: wardround-site start")


def revoke(folder: Folder, site: str) -> None:
    """Shut a site out."""
    _either(folder, lambda service: service.revoke(site), lambda enrolment: enrolment.revoke(site))
    typer.echo(
        f"{site} is shut out, and its key with it. To let it in with a new key: "
        f"wardround-coordinator invite {site}"
    )


def _either(
    folder: Folder, service: Callable[[Operator], Json], alone: Callable[[Enrolment], EnrolledSite]
) -> None:
    """Change who belongs through the service, or without it for when it starts."""
    try:
        with closing(Operator(folder)) as operator:
            service(operator)
    except Unreachable:
        alone(Enrolment(folder.enrolment))
        typer.echo("The service does not run; this holds from its start on.", err=True)


def _overview(folder: Folder) -> Json:
    try:
        with closing(Operator(folder)) as operator:
            return operator.sites()
    except Unreachable as error:
        typer.echo(f"{error}", err=True)
        enrolment = Enrolment(folder.enrolment)
        sites = [{**site.facts(), "online": False} for site in enrolment.sites()]
        return {"sites": sites, "invited": enrolment.invited()}


def _pair(text: str, fingerprint: str | None) -> tuple[str, str | None]:
    name, equals, shown = text.partition("=")
    if name.startswith("SHA256:"):
        message = f"{name} stands by itself. Write site and fingerprint as one: SITE={name}"
        raise ConfigurationError(message)
    return name, shown if equals else fingerprint


def _compare_first(folder: Folder, name: str) -> str:
    found = [
        site
        for site in Enrolment(folder.enrolment).sites()
        if site.name == name and site.state == "pending"
    ]
    if not found:
        return (
            f"{name} does not wait to be accepted. `wardround-coordinator sites` shows who does; "
            f"to invite it: wardround-coordinator invite {name}"
        )
    return f"{name} joined. {_how_to_accept(name)}"


def _how_to_accept(name: str) -> str:
    """Return the command; what is compared is not shown here, or it would be copied from here."""
    return (
        "Its admin reads the key's fingerprint to you (there: wardround-site status); type what "
        f"you hear: wardround-coordinator sites accept {name}=SHA256:..."
    )


def _state(site: Json) -> str:
    if site["state"] != "accepted":
        return str(site["state"])
    return "connected" if site["online"] else "accepted, not connected"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
