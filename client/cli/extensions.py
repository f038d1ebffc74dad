"""`extensions`: installed code of others, and whether this site allows it."""

from __future__ import annotations

import json

from client.site.extensions_section import how_to_allow, is_allowed
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say
from common.extensions.content import Installed, offered


def show_extensions(home: Home, *, as_json: bool) -> None:
    """List installed extensions with version and content, and how to allow each."""
    allowed = load_site_config(home.site_yaml).extensions
    found = offered()
    if as_json:
        lines = [
            {
                **one.extension.model_dump(),
                "names": one.names,
                "offers": [{"kind": kind, "name": name} for kind, name in one.offers],
                "allowed": is_allowed(one.extension, allowed),
                "doubts": one.doubts,
            }
            for one in found
        ]
        say(json.dumps(lines, indent=1))
        return
    for one in found:
        _say(one, is_in_list=is_allowed(one.extension, allowed))
    if not found:
        say("No extension is installed. Install one beside Wardround: pip install DISTRIBUTION")
    here = {one.extension.distribution for one in found}
    for rule in allowed:
        if rule.distribution not in here:
            say(f"{rule.distribution} is allowed in site.yaml and not installed.")


def _say(one: Installed, *, is_in_list: bool) -> None:
    say(as_text(f"{one.extension.distribution} {one.extension.version}"))
    say(f"  offers   {as_text(', '.join(f'{name} ({kind})' for kind, name in one.offers))}")
    say(f"  content  {one.extension.content}")
    if one.doubts:
        say(f"  refused  {one.doubts[0]}")
    elif is_in_list:
        say("  allowed  runs that are approved may use it")
    else:
        say("  refused  not in site.yaml. It would run with all the rights of this site's service:")
        say("           look at its code, then add to extensions:")
        say(f"           {how_to_allow(one.extension)}")
