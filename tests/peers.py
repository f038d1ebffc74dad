"""Programs of others that tests start: a PACS, DICOM tools, a validator, a compiler.

`make test` installs them where it may (tests/peers.sh) and names what it could not install in
MISSING_PEERS. Tests that need those are skipped, and counted at the end; without that word a
missing program is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

#: The Debian package of each program.
PACKAGES = {
    "Orthanc": "orthanc",
    "dciodvfy": "dicom3tools",
    "dcmcjpeg": "dcmtk",
    "dcmcjpls": "dcmtk",
    "dcmconv": "dcmtk",
    "dcmcrle": "dcmtk",
    "dcmdjpeg": "dcmtk",
    "dcmdjpls": "dcmtk",
    "dcmdrle": "dcmtk",
    "dcmqridx": "dcmtk",
    "dcmqrscp": "dcmtk",
    "dpkg": "dpkg",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "gdcmconv": "libgdcm-tools",
    "ip": "iproute2",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "kadmin.local": "krb5-admin-server",
    "kdb5_util": "krb5-kdc",
    "krb5kdc": "krb5-kdc",
    "node": "nodejs",
    "openssl": "openssl",
    "squid": "squid",
    "ss": "iproute2",
    "ssh-keygen": "openssh-client",
    "storescu": "dcmtk",
}
#: Where `tests/peers.sh` puts the code of viewers, of which npm brings the modules.
VIEWER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardround-tests/viewer"
#: What Orthanc answers DICOMweb with.
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_REASON = "needs the package "


def program(name: str) -> str:
    """Return where a peer's program is; skip the test where `make` said that it is missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return found if found is not None else _without(PACKAGES[name], name)


def library(path: Path, package: str) -> Path:
    """Return a peer's library, or do as `program`."""
    if not path.exists():
        _without(package, str(path))
    return path


def viewer() -> Path:
    """Return the folder with the code of viewers, or do as `program`."""
    if not (VIEWER / "installed").exists():
        _without("npm", str(VIEWER))
    return VIEWER


def _without(package: str, name: str) -> str:
    if package in os.environ.get("MISSING_PEERS", "").split():
        pytest.skip(f"{_REASON}{package}")
    message = (
        f"{name} is missing: run `make test` as root, or install the Debian package {package}."
    )
    raise AssertionError(message)


def not_run(reasons: Sequence[str]) -> str:
    """Return the line that counts the tests that were skipped; empty for none."""
    wanted = Counter(r.removeprefix(_REASON) for r in reasons if r.startswith(_REASON))
    others = len(reasons) - wanted.total()
    if not wanted:
        return f"Not run: {others} tests for the reasons above." if others else ""
    parts = ", ".join(f"{count} need {package}" for package, count in sorted(wanted.items()))
    more = f", and {others} for the reasons above" if others else ""
    install = f"apt-get install --no-install-recommends {' '.join(sorted(wanted))}"
    return f"Not run: {wanted.total()} tests ({parts}){more}. As root: {install}"
