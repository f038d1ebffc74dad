"""One home for a cohort: two homes on the same patients would have a budget each.

Guarantee: of the homes that one user joins or starts on a machine, no two have the same folder of
images, or one within the other's, whatever it is called by.

    the other home is gone, or has other data now   its claim is void
    the same home, moved or by another path         it is the same
    one home, several coordinators                  one claim (client/site/home.py)
    a folder of state that cannot be written        not noticed there: a service's own user, say
    another user, another machine, a copy           not noticed (docs/limits.md)
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.site.home import Home
from client.site.site_config import load_site_config
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError


@dataclass(frozen=True)
class _Claim:
    data: Path  # both without symbolic links
    home: Path


def claim_cohort(home: Home, data: Path) -> None:
    """Note whose cohort a folder is; ConfigurationError where it is another home's."""
    own = _Claim(data.resolve(), home.folder.resolve())
    for other in _claims():
        if other.home != own.home and _overlap(other.data, own.data) and _holds(other):
            message = (
                f"{data} is the cohort of another home, {other.home}: two homes would spend two "
                f"budgets on the same patients. Use that one: --home {other.home}, and for "
                "another coordinator: wardround-site join INVITE --federation NAME"
            )
            raise ConfigurationError(message)
    name = hashlib.sha256(f"{own.home}\n{own.data}".encode()).hexdigest()[:32]
    content = json.dumps({"data": str(own.data), "home": str(own.home)}).encode()
    with suppress(OSError, RuntimeError):  # a user without a home
        replace_durably(_folder() / f"{name}.json", content, mode=0o600)


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "wardround" / "cohorts"


def _claims() -> list[_Claim]:
    found = []
    with suppress(OSError, RuntimeError):
        for path in sorted(_folder().glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                facts = json.loads(path.read_bytes())
                found.append(_Claim(Path(facts["data"]), Path(facts["home"])))
    return found


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def _holds(claim: _Claim) -> bool:
    """Return whether the home is there and still has that folder."""
    with suppress(ConfigurationError, OSError):
        return load_site_config(Home(claim.home).site_yaml).data.resolve() == claim.data
    return False
