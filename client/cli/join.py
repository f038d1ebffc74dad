"""`join`: from an invitation to a site that waits to be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.cli.init import make_folder, new_config, write
from client.cli.records import note_change
from client.governance.approvals import Approvals
from client.site.cohort_claim import claim_cohort
from client.site.home import FIRST, Home
from client.site.site_config import SiteConfig, load_site_config
from client.site.terminal import as_text, say
from client.transport.coordinator import load_coordinator
from client.transport.joining import join, wait_until_accepted
from client.transport.proxy import proxy_to
from common.config.run_config import RunConfig, load_config
from common.extensions.pinning import pinned
from common.messages.enrolment import Invite, JoinReply
from common.platform.errors import ConfigurationError

_BEGIN = "wardround-invite-"
_LARGEST_INVITE = 64 * 1024
#: Shorter than any: a file's name that was mistyped, mostly.
_SHORTEST_INVITE = 100


@dataclass(frozen=True, kw_only=True)
class JoinOptions:
    """The options of `join` as typed."""

    invite: str
    data: Path | None
    labels: Path | None
    approve: Path | None
    wait: bool
    new_key: bool


def join_coordinator(home: Home, options: JoinOptions) -> None:
    """Join, initialising the home first where that is still to be done."""
    text = invite_text(options.invite)
    invite = Invite.from_text(text)
    _check_other(home, invite)
    approved = (
        None if options.approve is None else pinned(load_config(options.approve), at_site=True)
    )
    new = _wanted_config(home, invite, options)
    claim_cohort(home, (new or load_site_config(home.site_yaml)).data)
    make_folder(home)
    reply = join(home, text, new_key=options.new_key)
    if new is not None:
        write(home, _with_way(new, invite))
    if approved is not None:
        _approve(home, approved)
    _tell(home, invite, reply)
    if options.wait and reply.state == "pending":
        say("Waiting until they have; Ctrl-C ends the waiting, not the joining.")
        wait_until_accepted(home)
        say(f"{as_text(reply.coordinator)} has accepted this site.")
    again = ", anew if it runs: it serves every federation of this home"
    say(f"Next: wardround-site start{again if len(home.joined()) > 1 else ''}")


def _check_other(home: Home, invite: Invite) -> None:
    """Refuse to put one coordinator in the place of another, or to join one twice."""
    for one in home.joined():
        known = load_coordinator(one)
        is_it = known.fingerprint == invite.ca_sha256
        if is_it and one != home:
            message = (
                f"This home belongs to {known.name} already, as its federation {one.federation}. "
                f"Type the command with --federation {one.federation} to join it anew."
            )
            raise ConfigurationError(message)
        if not is_it and one == home:
            message = (
                f"This home belongs to {known.name} at {known.address}, and the invitation is of "
                "another coordinator. To belong to both, with one budget for the patients: "
                "wardround-site join INVITE --federation NAME. To leave the first: wardround-site "
                "leave"
            )
            raise ConfigurationError(message)


def invite_text(given: str) -> str:
    """Return the invitation's line, which was typed or lies in a file."""
    path = Path(given)
    try:
        is_file = not given.startswith(_BEGIN) and path.is_file()
        if is_file and path.stat().st_size > _LARGEST_INVITE:
            message = f"{path} is too large for an invitation. Give the coordinator's own file."
            raise ConfigurationError(message)
        if not is_file and not given.startswith(_BEGIN) and len(given) < _SHORTEST_INVITE:
            message = (
                f"There is no file {given!r}, and it is no invitation: that is one long line that "
                f"begins with {_BEGIN}. Give the line, or the file that holds it."
            )
            raise ConfigurationError(message)
        return path.read_text(encoding="utf-8") if is_file else given
    except (OSError, UnicodeDecodeError, ValueError) as error:
        message = f"Cannot read the invitation {given[:80]}: {error}. Give the line itself."
        raise ConfigurationError(message) from error


def _wanted_config(home: Home, invite: Invite, options: JoinOptions) -> SiteConfig | None:
    """Return the site.yaml that is to be written; None where there is one that fits."""
    if not home.site_yaml.exists():
        if options.data is None:
            message = (
                "This site has no site.yaml yet. Say where its DICOM files are: "
                "wardround-site join INVITE --data FOLDER"
            )
            raise ConfigurationError(message)
        return new_config(invite.site, options.data, options.labels)
    config = load_site_config(home.site_yaml)
    if config.name != invite.site and home.federation == FIRST:
        message = (
            f"The invitation is for the site {invite.site}, and {home.site_yaml} says name: "
            f"{config.name}. Write name: {invite.site} there, or give another home with --home."
        )
        raise ConfigurationError(message)
    for option, given, kept in (
        ("--data", options.data, config.data),
        ("--labels", options.labels, config.labels),
    ):
        if given is not None and given.expanduser().absolute() != kept:
            message = (
                f"{option} is {given}, and {home.site_yaml} says {kept}. Change it there, or "
                f"leave {option} out."
            )
            raise ConfigurationError(message)
    if invite.tunnel and not config.tunnel:
        message = (
            f"TLS ends before this coordinator, as the invitation says, and {home.site_yaml} says "
            "tunnel: false. Write tunnel: true there, and type the same line again."
        )
        raise ConfigurationError(message)
    return None


def _with_way(config: SiteConfig, invite: Invite) -> SiteConfig:
    """Write down the tunnel, and the environment's proxy if it was needed: a service sees none."""
    config = config.model_copy(update={"tunnel": invite.tunnel})
    proxy = proxy_to(invite.address, config.proxy)
    if proxy is None:
        return config
    say(f"The proxy {proxy.shown} of HTTPS_PROXY is on the way; site.yaml says so from now on.")
    return SiteConfig.model_validate(config.model_dump() | {"proxy": proxy.url})


def _approve(home: Home, config: RunConfig) -> None:
    fingerprint = Approvals(home.approvals).decide_ahead(config, "approved")
    note_change(home, "The approval")
    say(f"Approved configuration {config.name} ({fingerprint[:16]}), whichever run asks for it.")


def _tell(home: Home, invite: Invite, reply: JoinReply) -> None:
    coordinator = as_text(reply.coordinator)
    if reply.state == "accepted":
        say(f"{coordinator} has accepted this site already.")
        return
    say(f"Joined {coordinator} at {invite.address} as {invite.site}.")
    say(f"The private key was made here, in {home.key}, and stays here.")
    say(f"Call {coordinator} and read them this fingerprint; they accept it with")
    say(f"  wardround-coordinator sites accept {invite.site}={reply.fingerprint}")
