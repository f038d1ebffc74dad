"""Puts beside the wheel in dist/ what an outside user needs to trust it.

These are:

    the locks                    what is installed with it, by hash
    wardround-VERSION.cdx.json   the same as a software bill of materials (CycloneDX 1.6)
    SHA256SUMS                   the hash of each of these files, and of the wheel

Run by `make wheel`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
import uuid
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
SHIPPED = (
    "torch",
    "torch-cpu",
    "torch-cuda",
    "site",
    "site-slim",
    "ocr",
    "coordinator",
    "simulation",
)
_REQUIREMENT = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)==([^ ;\\\n]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Json = dict[str, object]


def main(dist: Path = ROOT / "dist") -> None:
    """Write them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheel = dist / f"{project['name']}-{project['version']}-py3-none-any.whl"
    shipped = [Path(shutil.copy(HERE / f"{name}.txt", dist)) for name in SHIPPED]
    sbom = dist / f"{project['name']}-{project['version']}.cdx.json"
    sbom.write_text(json.dumps(bill(project, wheel, shipped), indent=1) + "\n", encoding="utf-8")
    sums = [f"{sha256(path)}  {path.name}\n" for path in (wheel, sbom, *shipped)]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def bill(project: Json, wheel: Path, locks: list[Path]) -> Json:
    """Return the bill of materials: the wheel, and every package that a lock names."""
    name, version = str(project["name"]), str(project["version"])
    digest = sha256(wheel)
    own: Json = {
        "type": "application",
        "bom-ref": name,
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": project["license"]}}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    components: dict[str, Json] = {}
    for lock in locks:
        for ref, component in components_of(lock.read_text(encoding="utf-8")).items():
            components.setdefault(ref, component)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        # Of the wheel's content, so that the same release has the same bill.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "metadata": {"component": own},
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": name, "dependsOn": sorted(components)}],
    }


def components_of(lock: str) -> dict[str, Json]:
    """Return a lock's packages by package URL; one has a hash for each of its files."""
    found: dict[str, Json] = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", lock):
        requirement = _REQUIREMENT.match(block)
        if requirement is None:
            continue
        name, version = requirement.groups()
        url = f"pkg:pypi/{name.replace('_', '-').replace('.', '-')}@{version}"
        files = [
            {"type": "distribution", "url": url, "hashes": [{"alg": "SHA-256", "content": one}]}
            for one in sorted(set(_HASH.findall(block)))
        ]
        found[url] = {
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": version,
            "purl": url,
            "externalReferences": files,
        }
    return found


def sha256(path: Path) -> str:
    """Return a file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
