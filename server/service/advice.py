"""Advice on a run: the commands that a person should type next.

Public: advice, nobody_accepted.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.messages.refusals import RefusalReason
from server.enrolment.registry import EnrolledSite
from server.files.status_reader import RunView, SiteStatus

#: What a site's admin types where a reason passes with a word of theirs.
_AT_THE_SITE = {
    RefusalReason.NOT_APPROVED.value: "its admin reads it and types: wardround-site approve {run}",
    RefusalReason.PAUSED.value: "its admin ends the pause: wardround-site resume",
    RefusalReason.EXTENSION_NOT_ALLOWED.value: "its admin looks at the code and allows it in "
    "site.yaml: wardround-site extensions",
    RefusalReason.EXTENSION_NOT_INSTALLED.value: "its admin installs it: wardround-site runs {run}",
    RefusalReason.EXTENSION_OTHER_CONTENT.value: "both sides install the same build of it: "
    "wardround-site extensions",
    RefusalReason.FILES.value: "its admin allows it in site.yaml: policy.allow_files",
    RefusalReason.WEIGHTS.value: "its admin puts the file into HOME/weights: wardround-site runs "
    "{run}",
    RefusalReason.FAILED.value: "its admin reads the log and types: wardround-site doctor",
    RefusalReason.RELEASE.value: "its admin installs the release that the coordinator has",
}
_RESUME = "goes on from the last saved round: wardround-coordinator resume {run}"


def advice(view: RunView) -> tuple[str, ...]:
    """Return what to do, most urgent first; empty when there is nothing to do but to wait."""
    match view.facts.state:
        case "done" if view.exported:
            return ()
        case "done":
            return (f"write the model as a bundle: wardround-coordinator export {view.name}",)
        case "failed" | "stopped" | "interrupted" if _is_told(view):
            return ()
        case "failed":
            return ("mend what the message says; then it " + _RESUME.format(run=view.name),)
        case "stopped" | "interrupted":
            return ("it " + _RESUME.format(run=view.name),)
        case _:
            return _while_it_runs(view)


def _is_told(view: RunView) -> bool:
    """Return whether the run's own message ends with the command."""
    return f"resume {view.name}" in view.facts.message


def _while_it_runs(view: RunView) -> tuple[str, ...]:
    status = view.status
    if status is None:
        return ()
    if not status.sites and status.phase == "approval":
        return ("no site is accepted yet; how to go on: wardround-coordinator sites",)
    lines = [_of_site(view, name, site) for name, site in status.sites.items()]
    return tuple(line for line in lines if line)


def _of_site(view: RunView, name: str, site: SiteStatus) -> str:
    known = next((told for why, told in _AT_THE_SITE.items() if site.why.startswith(why)), None)
    if known is not None:
        return f"{name}: " + known.format(run=view.name)
    match site.state:
        case "offline":
            return f"{name} is not connected: its admin types wardround-site start (or doctor)"
        case "refused":
            return f"{name}: {site.why}; ask its admin, or change the configuration"
        case "late":
            return f"{name} was late: its admin sees why in wardround-site status"
        case _:
            return ""


def nobody_accepted(sites: Sequence[EnrolledSite]) -> str:
    """Return what to do where no site was accepted yet."""
    waiting = [site.name for site in sites if site.state == "pending"]
    if not waiting:
        return "No site is accepted yet. Invite one: wardround-coordinator invite SITE"
    accept = " ".join(f"{name}=SHA256:..." for name in waiting)
    return (
        f"No site is accepted yet: {', '.join(waiting)} "
        f"wait{'s' * (len(waiting) == 1)} for you. With the fingerprints that their admins read "
        f"to you: wardround-coordinator sites accept {accept}"
    )
