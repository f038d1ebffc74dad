"""Builds dist/wardround-site_VERSION_all.deb for a hospital's Debian machine, from dist/.

    make deb

The package holds the wheel, the locks and a systemd unit. It fetches nothing when it is installed:
`wardround-site-setup` then makes the environment in /opt/wardround, each package by its hash, from
where pip looks or from a folder. What a site holds lies in /var/lib/wardround, and stays when the
package goes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from client.node.systemd import packaged_unit

ROOT = Path(__file__).parents[1]
ENVIRONMENT, HOME = Path("/opt/wardround"), Path("/var/lib/wardround")
LOCKS = ("site", "site-slim", "torch", "torch-cpu", "torch-cuda")
CONTROL = """\
Package: wardround-site
Version: {version}
Architecture: all
Section: science
Priority: optional
Maintainer: the authors of Wardround <wardround@localhost>
Depends: python3 (>= 3.11), python3-venv, adduser
Installed-Size: {kib}
Description: a hospital's side of federated learning on DICOM images
 Trains models between hospitals; images and scores stay here. After the package, as root:
 wardround-site-setup, which installs each Python package by its hash.
"""
COMMAND = """\
#!/bin/sh
if [ ! -x {environment}/bin/wardround-site ]; then
  echo "Wardround's Python packages are not here yet. As root, type: wardround-site-setup" >&2
  exit 1
fi
exec {environment}/bin/wardround-site "$@"
"""
SETUP = """\
#!/bin/sh
# Makes {environment} anew from the files in /usr/share/wardround, each package by its hash.
set -eu
torch=torch.txt cuda=torch-cuda.txt site=site.txt find=
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) torch=torch-cpu.txt cuda= ;;  # its file lies where pip looks, or in FOLDER
    --slim) site=site-slim.txt ;;
    --from) [ $# -gt 1 ] || {{ echo "--from needs a folder" >&2; exit 2; }}
      find="--no-index --find-links $(realpath -- "$2")"; shift ;;
    *) echo "wardround-site-setup [--cpu] [--slim] [--from FOLDER-OF-WHEELS]" >&2; exit 2 ;;
  esac
  shift
done
cd /usr/share/wardround
sha256sum --quiet --check SHA256SUMS
rm -rf {environment}.new
python3 -m venv {environment}.new
for lock in $torch $cuda $site; do
  # shellcheck disable=SC2086 - two options, or none
  {environment}.new/bin/pip install --quiet --only-binary :all: --require-hashes --no-deps $find \\
    --requirement $lock
done
{environment}.new/bin/pip install --quiet --no-index --no-deps wardround-*.whl
rm -rf {environment}.old
[ ! -e {environment} ] || mv {environment} {environment}.old
mv {environment}.new {environment}
# Commands name the folder that they were made in.
grep -lI '^#!{environment}.new/' {environment}/bin/* |
  xargs -r sed -i '1s|{environment}.new|{environment}|'
rm -rf {environment}.old
echo "Next, as root: runuser -u wardround -- wardround-site join INVITE --data FOLDER --home {home}"
echo "Then: systemctl enable --now wardround-site"
"""
POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  id wardround > /dev/null 2>&1 || \\
    adduser --quiet --system --group --home {home} --no-create-home wardround
  [ -d {home} ] || install -d -m 0700 -o wardround -g wardround {home}
  if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
"""
PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl --quiet disable --now wardround-site || true
fi
"""


def main(dist: Path = ROOT / "dist") -> Path:
    """Build the package; returns its file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    wheel = dist / f"wardround-{version}-py3-none-any.whl"
    package = dist / f"wardround-site_{version}_all.deb"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "wardround-site"
        _fill(tree, wheel, version)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", tree, package],  # noqa: S607
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(int(wheel.stat().st_mtime))},
        )
    return package


def _fill(tree: Path, wheel: Path, version: str) -> None:
    share, names = tree / "usr/share/wardround", {"environment": ENVIRONMENT, "home": HOME}
    share.mkdir(parents=True)
    files = [wheel, *(wheel.parent / f"{name}.txt" for name in LOCKS)]
    for file in files:
        shutil.copy(file, share)
    sums = subprocess.run(
        ["sha256sum", *(file.name for file in files)],  # noqa: S607
        cwd=share,
        check=True,
        capture_output=True,
        text=True,
    )
    (share / "SHA256SUMS").write_text(sums.stdout, encoding="ascii")
    _write(tree / "usr/bin/wardround-site", COMMAND.format(**names), 0o755)
    _write(tree / "usr/sbin/wardround-site-setup", SETUP.format(**names), 0o755)
    unit = packaged_unit(Path("/usr/bin/wardround-site"), HOME)
    _write(tree / "lib/systemd/system/wardround-site.service", unit, 0o644)
    kib = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024 + 1
    _write(tree / "DEBIAN/control", CONTROL.format(version=version, kib=kib), 0o644)
    _write(tree / "DEBIAN/postinst", POSTINST.format(**names), 0o755)
    _write(tree / "DEBIAN/prerm", PRERM, 0o755)
    for path in (tree, *tree.rglob("*")):  # whatever this process's umask is
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


if __name__ == "__main__":
    print(main(*map(Path, sys.argv[1:])))  # noqa: T201 - what was built
