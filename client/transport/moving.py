"""A coordinator that moves, or renews its authority: what a site makes of its signed notice.

Guarantee: a site's address changes only where the authority that it joined signed the notice
(common/messages/notice.py), where the notice is newer than the last one, and where a server of that
authority answers at the new address and knows this site's key as accepted.

    an old notice again               not newer: passed over
    signed, but a stranger is there   no certificate of the authority: the site stays where it was,
                                      sends nothing, and tries again later
    the old address is gone first     the notice is kept, and the new address tried beside the old
    a site that was off meanwhile     gets it at its next start, or by `wardround-site move LINE`
    the authority's certificate ended the notice brings the new one, of the same key
"""

from __future__ import annotations

from dataclasses import replace

from client.site.home import Home
from client.transport.coordinator import Coordinator, load_authority, load_coordinator
from client.transport.joining import fetch_unproven, state_at
from client.transport.proxy import site_way
from common.messages.notice import NOTICE_PATH, Notice
from common.platform.durable_files import replace_durably
from common.platform.errors import TrustRefused, Unreachable


def look_for_notice(home: Home) -> Coordinator | None:
    """Ask the coordinator whether it moved, and follow; returns where it is if that changed.

    Nobody needs to answer: a notice that came before is tried as well.
    """
    coordinator = load_coordinator(home)
    way = site_way(home, coordinator.address)
    try:
        status, content = fetch_unproven(coordinator.address, way, NOTICE_PATH)
        if status == 200:
            keep_notice(home, Notice.parse(content))
    except (Unreachable, TrustRefused):
        pass  # who answers there is not the coordinator, or nobody does
    return follow(home)


def keep_notice(home: Home, notice: Notice) -> bool:
    """Keep the coordinator's notice if it is newer than all before; TrustRefused for others."""
    coordinator = load_coordinator(home)
    notice.check(load_authority(home, coordinator))
    kept = _kept(home)
    if notice.number <= max(coordinator.number, 0 if kept is None else kept.number):
        return False
    replace_durably(home.notice, notice.to_json())
    return True


def follow(home: Home) -> Coordinator | None:
    """Do what the kept notice says where it can be done; returns the coordinator as it is then."""
    notice, coordinator = _kept(home), load_coordinator(home)
    if notice is None or notice.number <= coordinator.number:
        return None
    authority = load_authority(home, coordinator)
    try:
        notice.check(authority)  # the file is ours, and is looked at all the same
        if notice.address != coordinator.address:
            # First: nothing is changed before the authority's own server has answered there.
            known = state_at(home, coordinator.site, notice.address, notice.certificate)
            if known.state != "accepted":
                return None
    except (Unreachable, TrustRefused):
        return None
    renewed = "" if notice.certificate == authority else notice.certificate
    moved = replace(
        coordinator,
        address=notice.address,
        number=notice.number,
        renewed=renewed or coordinator.renewed,
    )
    moved.note(home)
    return moved


def pending(home: Home) -> str:
    """Return the address that a notice names and where nobody has answered yet; empty for none."""
    notice, coordinator = _kept(home), load_coordinator(home)
    if notice is None or notice.number <= coordinator.number:
        return ""
    return notice.address if notice.address != coordinator.address else ""


def _kept(home: Home) -> Notice | None:
    try:
        return Notice.parse(home.notice.read_bytes())
    except (OSError, TrustRefused):
        return None
