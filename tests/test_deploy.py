"""What deploy/ holds: images, Compose, Kubernetes, a Debian package.

Its load balancers are tried in tests/end_to_end/test_tunnel.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import compose_spec
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tests.peers import program

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
sys.path[:0] = [str(DEPLOY), str(ROOT / "locks")]
import deb  # noqa: E402 - a script
import release  # noqa: E402 - the same

STAGES = {"site", "coordinator"}


@pytest.fixture(scope="module")
def stages() -> dict[str, list[dict[str, str]]]:
    """Return each stage's instructions."""
    parser = DockerfileParser(fileobj=BytesIO((DEPLOY / "Containerfile").read_bytes()))
    found: dict[str, list[dict[str, str]]] = {}
    name = ""
    for one in parser.structure:
        if one["instruction"] == "FROM":
            name = one["value"].split(" AS ")[1]
            found[name] = []
        if name:
            found[name].append(one)
    return found


def values(stages: dict[str, list[dict[str, str]]], instruction: str) -> Iterator[tuple[str, str]]:
    for stage, instructions in stages.items():
        for one in instructions:
            if one["instruction"] == instruction:
                yield stage, one["value"]


def test_images_are_made_of_packages_by_hash_and_run_as_nobody_of_rights(
    stages: dict[str, list[dict[str, str]]],
) -> None:
    assert set(stages) >= STAGES
    for _, value in values(stages, "COPY"):
        source = re.match(r"--from=(\S+)", value)
        assert source is None or source[1] in stages
    commands = [
        part
        for _, run in values(stages, "RUN")
        for part in run.split("&&")
        if "pip install" in part
    ]
    assert commands
    for command in commands:
        assert "--no-deps" in command
        assert "--require-hashes" in command or "--no-index" in command
    locks = set(re.findall(r"[\w-]+\.txt", (DEPLOY / "Containerfile").read_text()))
    assert {name.removesuffix(".txt") for name in locks} <= set(release.SHIPPED)
    assert {stage for stage, user in values(stages, "USER") if int(user) > 0} == STAGES
    started = dict(values(stages, "ENTRYPOINT"))
    assert started == {name: f'["wardround-{name}"]' for name in STAGES}


def test_compose_starts_the_images_that_the_containerfile_makes(
    stages: dict[str, list[dict[str, str]]],
) -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    compose_spec.ComposeSpecification.model_validate(content)
    for name, service in content["services"].items():
        assert service["image"] == f"wardround-{name}"
        assert service["build"]["target"] in stages
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        volumes = {volume.partition(":")[0] for volume in service["volumes"]} - {"${DICOM"}
        assert volumes <= set(content["volumes"])


def test_kubernetes_takes_the_manifest_and_one_pod_has_the_folder() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
    (pods,) = [d["spec"] for d in documents if d["kind"] == "StatefulSet"]
    (service,) = [d["spec"] for d in documents if d["kind"] == "Service"]
    assert pods["replicas"] == 1
    assert service["selector"] == pods["template"]["metadata"]["labels"]
    assert {d["metadata"]["name"] for d in documents} == {"wardround-coordinator"}
    (volume,) = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pods["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert volume in {d["metadata"]["name"] for d in documents if "Claim" in d["kind"]}


# --- the Debian package -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package of a small wheel whose command says where it is."""
    dist = tmp_path_factory.mktemp("dist")
    info = "wardround-0.1.0.dist-info"
    with zipfile.ZipFile(dist / "wardround-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("wardround_commands.py", "def site():\n    print('a site')\n")
        wheel.writestr(
            f"{info}/entry_points.txt",
            "[console_scripts]\nwardround-site = wardround_commands:site\n",
        )
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: wardround\nVersion: 0.1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    for name in deb.LOCKS:
        (dist / f"{name}.txt").write_text("# nothing\n")
    return deb.main(dist)


@pytest.mark.processes
def test_the_package_has_a_unit_a_command_and_what_is_installed_by_hash(
    package: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    database = root / "var/lib/dpkg"
    for folder in ("info", "updates", "triggers"):
        (database / folder).mkdir(parents=True)
    (database / "status").touch()
    done = subprocess.run(
        [
            program("dpkg"),
            f"--root={root}",
            "--force-not-root",
            "--force-depends",
            "--unpack",
            package,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wardround-site" in (database / "status").read_text()
    unit = (root / "lib/systemd/system/wardround-site.service").read_text()
    assert "ExecStart=/usr/bin/wardround-site start --json --home /var/lib/wardround" in unit
    assert "User=wardround" in unit
    assert "ProtectSystem=strict" in unit
    assert os.access(root / "usr/bin/wardround-site", os.X_OK)
    share = root / "usr/share/wardround"
    assert {path.name for path in share.iterdir()} == {
        *(f"{name}.txt" for name in deb.LOCKS),
        "SHA256SUMS",
        "wardround-0.1.0-py3-none-any.whl",
    }


@pytest.mark.processes
def test_setup_makes_the_environment_that_the_command_starts_and_nothing_of_a_changed_file(
    package: Path, tmp_path: Path
) -> None:
    subprocess.run([program("dpkg-deb"), "-x", package, tmp_path], check=True)
    share, environment = tmp_path / "usr/share/wardround", tmp_path / "opt/wardround"
    environment.parent.mkdir()
    for name in ("usr/bin/wardround-site", "usr/sbin/wardround-site-setup"):
        script = tmp_path / name
        text = script.read_text().replace("/usr/share/wardround", str(share))
        script.write_text(text.replace("/opt/wardround", str(environment)))

    def typed(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / name, *words], capture_output=True, text=True, check=False
        )

    before = typed("usr/bin/wardround-site")
    assert (before.returncode, "wardround-site-setup" in before.stderr) == (1, True)
    assert typed("usr/sbin/wardround-site-setup", "--wrong").returncode == 2
    for _ in range(2):  # the second time as an upgrade does it
        made = typed("usr/sbin/wardround-site-setup", "--cpu", "--slim", "--from", str(share))
        assert made.returncode == 0, made.stderr
        assert typed("usr/bin/wardround-site").stdout == "a site\n"
    (share / "site.txt").write_text("something==1\n")
    refused = typed("usr/sbin/wardround-site-setup")
    assert refused.returncode != 0
    assert "site.txt: FAILED" in refused.stdout
    assert typed("usr/bin/wardround-site").stdout == "a site\n"
