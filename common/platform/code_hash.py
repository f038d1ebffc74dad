"""Release of Wardround: one hash over its code, and Flower's bundle without code.

Flower ships every site a bundle with each run. Ours holds a list of what is installed and no
code, so a site refuses any bundle whose hash is not its own release's, and runs what it
installed. The hash changes when a single Python file of ours does, so both sides of a run
are known to have the same code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import zipfile
from pathlib import Path

from common.platform.errors import TrustRefused

#: The version of the installed wheel.
RELEASE = importlib.metadata.version("wardround")
#: What runs between hospitals; a simulation is no part of it.
_PACKAGES = ("client", "common", "server")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip can hold: equal content, equal bytes
_PYPROJECT = f"""\
[project]
name = "wardround"
version = "{RELEASE}"
description = "Runs the Wardround that is installed; holds no code"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "wardround"
fab-include = ["/README.md"]

[tool.flwr.app.components]
serverapp = "server.processes.run_process:app"
clientapp = "client.node.request_handler:app"

[tool.flwr.app.config]
run = ""
"""
_README = """\
This bundle holds no code. Every site runs the Wardround that its own admin installed, and
refuses the run when MANIFEST is not the list of exactly that installation.
"""


@functools.cache
def bundle() -> bytes:
    """Return the bundle: the same bytes for the same code, wherever it is installed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        files = {"pyproject.toml": _PYPROJECT, "README.md": _README, "MANIFEST": _manifest()}
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, on whichever system it is written
            archive.writestr(entry, text.encode())
    return content.getvalue()


@functools.cache
def bundle_hash() -> str:
    """Return the SHA-256 of the bundle, in hex."""
    return hashlib.sha256(bundle()).hexdigest()


def _manifest() -> str:
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"
        for name, path in sorted(_sources().items())
    )


def _sources() -> dict[str, Path]:
    """Return every Python file of the packages as Python would import them."""
    found: dict[str, Path] = {}
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            message = (
                f"The package {package} of Wardround {RELEASE} is not installed. "
                "Install the whole wheel again."
            )
            raise TrustRefused(message)
        for folder in map(Path, spec.submodule_search_locations):
            for path in folder.rglob("*.py"):
                found[f"{package}/{path.relative_to(folder).as_posix()}"] = path
    return found
