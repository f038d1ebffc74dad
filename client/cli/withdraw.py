"""`withdraw`: a patient leaves, and who has left."""

from __future__ import annotations

from pathlib import Path

import typer

from client.cli.records import note_change
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, ask, say, table
from client.site.withdrawals import listed, writing
from common.platform.errors import ConfigurationError


def list_withdrawn(home: Home) -> None:
    """List every withdrawal, and whether it has come to its end."""
    found = listed(home.withdrawals)
    if not found:
        say("Nobody was withdrawn here.")
        return
    rows = [("PATIENT", "WITHDRAWN (UTC)", "FORGOTTEN (UTC)")]
    rows += [
        (
            as_text(one.patient),
            one.at[:19].replace("T", " "),
            one.forgotten_at[:19].replace("T", " ")
            if one.forgotten_at
            else "not yet: type the withdrawal once more",
        )
        for one in found
    ]
    table(rows)


def withdraw(home: Home, patient: str | None, *, yes: bool, delete_pulled: bool) -> None:
    """Write the withdrawal durably, then forget what is kept of the patient."""
    from client.withdrawal.purge import delete, forget, kept_of

    site = load_site_config(home.site_yaml)
    name = (patient or "").strip()
    if not name:
        message = "Name the patient: `wardround-site withdraw PATIENT`, or --list for who has left."
        raise ConfigurationError(message)
    kept = kept_of(home, site, name)
    say(f"{as_text(name)}: {len(kept.images)} images, {kept.rows} rows of the table here.")
    if not kept.images and not kept.rows:
        say("Nobody here has that PatientID. Is it right? Capitals and leading zeros count.")
        if kept.near:
            say(f"Near it: {', '.join(as_text(near) for near in kept.near)}.")
    if not yes and not ask(f"Withdraw {as_text(name)} for good?"):
        say("Nothing was changed.")
        return
    with writing(home.withdrawals) as log:
        new = log.withdraw(name)
        say("Withdrawn; from now on nobody trains with them." if new else "Was withdrawn before.")
        forgotten = forget(home, name, lambda text: typer.echo(f"  {text}", err=True))
        gone = delete(kept.pulled) if delete_pulled else 0
        log.forgotten(name)
    note_change(home, "The withdrawal")
    say(
        f"Forgotten: {forgotten.indexed} images of the index, pixels of {forgotten.decoded}, and "
        f"{forgotten.prepared} files of prepared images."
    )
    if gone:
        say(f"Deleted {gone} files that `pull` had fetched.")
    _say_what_stays(home, [path for path in kept.images if path.exists()], kept.rows)


def _say_what_stays(home: Home, images: list[Path], rows: int) -> None:
    """Say what is the hospital's to remove, and what nobody can."""
    say("What stays:")
    if images:
        say(f"  {len(images)} files in {images[0].parent} and beside it, which are not read again")
    if rows:
        say(f"  {rows} rows of the table, which are left out; remove them when you can")
    if home.results.is_dir():
        say(f"  results of models about patients in {home.results}, as part of their records")
    say("  models that were trained before, with what they learnt; what has left this site;")
    say("  the privacy that was spent: `wardround-site budget`.")
