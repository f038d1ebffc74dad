"""`check-extension`: an installed extension, tried as runs would."""

from __future__ import annotations

from client.site.terminal import as_text, say


def check_extension(name: str, arguments: str, size: str, content: str | None) -> None:
    """Say what was tried of DISTRIBUTION/NAME and what holds; the first refusal is raised."""
    # Imported here: it loads torch.
    from client.privacy.extension_check import told

    for line in told(name, arguments, size, content):
        say(as_text(line))
