"""`init`: writes site.yaml, to be looked at before the site joins."""

from __future__ import annotations

from pathlib import Path

from client.site.cohort_claim import claim_cohort
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from client.site.terminal import say
from common.platform.errors import ConfigurationError


def init(home: Home, name: str, data: Path, labels: Path | None) -> None:
    """Write site.yaml and the folder that it stands in."""
    if home.site_yaml.exists():
        message = f"{home.site_yaml} is there already. Edit it, or give another home with --home."
        raise ConfigurationError(message)
    made = make_data(data)
    config = new_config(name, data, labels)
    claim_cohort(home, config.data)
    make_folder(home)
    write(home, config)
    if made:
        say(f"Made {data}, which is empty: `wardround-site pull` or you fill it.")
    say("Next: wardround-site join INVITE   (site.yaml says where the data are)")


def make_data(data: Path) -> bool:
    """Make the folder for images where only it is missing; return whether it was.

    Where its own place is missing too, a share may be unmounted or the path misspelt.
    """
    folder = data.expanduser()
    if folder.exists() or not folder.parent.is_dir():
        return False
    try:
        folder.mkdir(mode=0o750)
    except OSError as error:
        message = f"Cannot make {data}: {error.strerror}. Make it yourself, or give another --data."
        raise ConfigurationError(message) from error
    return True


def new_config(name: str, data: Path, labels: Path | None) -> SiteConfig:
    """Return a strict site.yaml; ConfigurationError where name or folder is none."""
    from pydantic import ValidationError

    from common.config.errors import explain

    if not data.expanduser().is_dir():
        message = f"There is no folder {data}. Give --data the folder with the DICOM files."
        raise ConfigurationError(message)
    try:
        return SiteConfig(
            name=name,
            data=data.expanduser().absolute(),
            labels=None if labels is None else labels.expanduser().absolute(),
        )
    except ValidationError as error:
        message = f"{explain(error, SiteConfig, 'init')}. Use a-z, 0-9 and hyphens."
        raise ConfigurationError(message) from error


def write(home: Home, config: SiteConfig) -> None:
    """Write site.yaml and say so."""
    write_site_config(home.site_yaml, config)
    say(f"Wrote {home.site_yaml}: look at its policy, which is strict as it stands.")


def make_folder(home: Home) -> None:
    """Make the home, for its user alone."""
    try:
        # One that is there already keeps its permissions; `doctor` says when they are too wide.
        home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = (
            f"Cannot write {home.folder}: {error.strerror}. Give --home a folder that this user "
            "may write."
        )
        raise ConfigurationError(message) from error
