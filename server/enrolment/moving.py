"""Moving of a coordinator, and renewal of its authority: both are told in a signed notice.

move, and the service goes on       it gives sites the notice at the old address
sites that were not there then      find it at the new address, if the old one leads there, or
                                    get the line by mail (`wardround-site move LINE`)
the authority's certificate ends    a new one for the same key, a year before
a site that slept over that year    trusts the signature of the key that it knows
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from common.messages.notice import Notice
from common.platform.durable_files import replace_durably
from common.platform.errors import StateDamaged, TrustRefused
from server.enrolment.certificates import (
    Authority,
    certificate_pem,
    now,
    read_certificate,
    renew_if_due,
)
from server.files.coordinator_yaml import (
    Settings,
    host_and_port,
    is_loopback,
    load_settings,
    new_settings,
    write_settings,
)
from server.files.folder import Folder

#: Sites have this long to hear of a renewed authority.
AUTHORITY_RENEWAL = timedelta(days=365)
#: Addresses of before whose names stay in the server's certificate.
_MOST_FORMER = 8
_SOON_DAYS = 30


def move(folder: Folder, address: str, at: datetime) -> Notice:
    """Change the coordinator's address; returns the notice that sites take."""
    settings = load_settings(folder.settings)
    wanted = new_settings(settings.name, address)  # refuses what is no address
    changes: dict[str, object] = {"address": wanted.address}
    (_, old_port), (listens_at, listens) = map(host_and_port, (settings.address, settings.listen))
    if is_loopback(host_and_port(settings.address)[0]) and is_loopback(listens_at):
        changes["listen"] = wanted.listen  # so far nobody but this machine was to come
    elif listens == old_port and host_and_port(wanted.address)[1] != old_port:
        host = f"[{listens_at}]" if ":" in listens_at else listens_at
        changes["listen"] = f"{host}:{host_and_port(wanted.address)[1]}"
    former = [settings.address, *_former(folder)]
    kept = [one for one in dict.fromkeys(former) if one != wanted.address][:_MOST_FORMER]
    notice = _noted(folder, Authority.load(folder), wanted.address, kept, at)
    write_settings(folder.settings, settings.model_copy(update=changes))  # last: it is the move
    return notice


def renew(folder: Folder, settings: Settings, at: datetime | None = None) -> list[str]:
    """Renew what ends soon: the authority's certificate and the server's; returns what was."""
    at = at or now()
    renewed = []
    authority = Authority.load(folder)
    if authority.certificate.not_valid_after_utc - at < AUTHORITY_RENEWAL:
        successor = authority.renewed(at)
        successor.save(folder, beside=authority)
        _noted(folder, successor, settings.address, _former(folder), at)
        renewed.append("authority")
    hosts = [host_and_port(one)[0] for one in (settings.address, *_former(folder))]
    if renew_if_due(folder, list(dict.fromkeys(hosts)), at):
        renewed.append("server")
    return renewed


def ends_soon(folder: Folder, at: datetime) -> list[str]:
    """Return a sentence for each certificate that ends within 30 days: no service renewed it."""
    found = []
    for what, path in (("authority's", folder.ca), ("server's", folder.server_key)):
        left = (read_certificate(path).not_valid_after_utc - at).days
        if left < _SOON_DAYS:
            found.append(
                f"The {what} certificate expires in {left} days; the service renews it: "
                "wardround-coordinator start"
            )
    return found


def notice_of(folder: Folder) -> Notice | None:
    """Return the last notice, None where nothing was moved or renewed yet."""
    facts = _facts(folder)
    if facts is None:
        return None
    try:
        return Notice.parse(json.dumps(facts["notice"]).encode())
    except (KeyError, TrustRefused) as error:
        raise _unreadable(folder) from error


def _noted(
    folder: Folder, authority: Authority, address: str, former: list[str], at: datetime
) -> Notice:
    before = notice_of(folder)
    notice = Notice(
        # By the clock, too: a folder from a backup may not know the last one.
        number=max(int(at.timestamp()), before.number + 1 if before else 1),
        address=address,
        certificate=certificate_pem(authority.certificate).decode("ascii"),
    ).signed(authority.key)
    facts = {"notice": json.loads(notice.to_json()), "former": former}
    replace_durably(folder.notice, json.dumps(facts, indent=1).encode())
    return notice


def _former(folder: Folder) -> list[str]:
    facts = _facts(folder)
    found = [] if facts is None else facts.get("former")
    return [str(one) for one in found] if isinstance(found, list) else []


def _facts(folder: Folder) -> dict[str, object] | None:
    try:
        facts = json.loads(folder.notice.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(folder) from error
    if not isinstance(facts, dict):
        raise _unreadable(folder)
    return facts


def _unreadable(folder: Folder) -> StateDamaged:
    message = (
        f"{folder.notice} cannot be read. Put the last copy back, or make it anew: "
        "wardround-coordinator move ADDRESS"
    )
    return StateDamaged(message)
