"""Extensions that a run names, held against what this site allows and has installed.

Guarantee: nothing of an extension is imported here, and no patient is read; what is refused is a
function of the configuration, site.yaml and the installed files.
"""

from __future__ import annotations

from collections.abc import Iterable

from client.governance.policy import Denied
from client.site.extensions_section import AllowedExtension, how_to_allow, is_allowed
from common.config.parts.extension import AT_SITES, distribution_of
from common.config.run_config import Extension, RunConfig
from common.extensions.content import installed, is_installed
from common.extensions.pinning import mismatch
from common.messages.wire import RefusalReason
from common.platform.errors import ExtensionRefused

_REASONS = {
    "not_installed": RefusalReason.EXTENSION_NOT_INSTALLED,
    "other_content": RefusalReason.EXTENSION_OTHER_CONTENT,
    "doubtful": RefusalReason.EXTENSION_OTHER_CONTENT,
}


def judge_extensions(config: RunConfig, allowed: Iterable[AllowedExtension]) -> Denied | None:
    """Return why an extension of the run may not be used here, or None where all may."""
    run, rules = config.in_force(), tuple(allowed)
    pins = {extension.distribution for extension in run.extensions}
    for name in run.extension_names():
        if distribution_of(name) not in pins:
            detail = f"{name} is named without version and content (extensions:)"
            return Denied(reason=RefusalReason.CONFIGURATION, detail=detail)
    here = {distribution_of(name) for name in run.extension_names(AT_SITES)}
    found = (_judged(e, rules, runs_here=e.distribution in here) for e in run.extensions)
    return next((denied for denied in found if denied is not None), None)


def check_task_allowed(config: RunConfig, allowed: Iterable[AllowedExtension]) -> None:
    """Refuse a task of others that this site does not allow, before its code reads a label.

    For commands that look at a run's cohort before anybody approved the run: ExtensionRefused.
    """
    named = {distribution_of(name) for name in config.extension_names({"tasks"})}
    rules = tuple(allowed)
    for extension in config.extensions:
        denied = _judged(extension, rules, runs_here=True)
        if extension.distribution in named and denied is not None:
            raise ExtensionRefused(denied.detail)


def _judged(
    extension: Extension, rules: tuple[AllowedExtension, ...], *, runs_here: bool
) -> Denied | None:
    """Return the first of: not installed, none that is allowed here, other files, not allowed.

    Files are hashed only of what somebody here allowed: a coordinator may name any distribution.
    What does not run here need not be installed, and is allowed like the rest.
    """
    known = any(rule.distribution == extension.distribution for rule in rules)
    if runs_here and (known or not is_installed(extension.distribution)):
        here = installed(extension.distribution) if known else None
        fault = mismatch(extension, here)
        if fault is not None:
            return Denied(reason=_REASONS[fault.kind], detail=fault.detail)
    if is_allowed(extension, rules):
        return None
    detail = (
        f"{extension.distribution} {extension.version} is not in this site's list of extensions. "
        f"Whoever trusts its code adds to extensions: in site.yaml: {how_to_allow(extension)}"
    )
    return Denied(reason=RefusalReason.EXTENSION_NOT_ALLOWED, detail=detail)
