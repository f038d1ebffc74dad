from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.readiness.check_finding import Finding
from client.readiness.doctor import examine
from client.site.site_config import load_site_config
from client.transport.proxy import proxy_to
from common.platform.errors import ConfigurationError
from server.enrolment.initialise import set_up
from server.files.coordinator_yaml import new_settings
from server.files.folder import Folder
from server.service.operator_client import Operator
from tests.client.connect_proxy import ConnectProxy, connect_proxy
from tests.client.dicom_files import image, noise, save, write_labels
from tests.client.terminals import COMMAND, ROOT, Site
from tests.server.coordinator import free_ports
from tests.server.service_process import service

VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
LOGIN = "ward:se%20cret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "configured", "address", "shown"),
    [
        ({}, None, "c.example:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "c.example:8443", "p:3128"),
        ({"https_proxy": "p:3128"}, None, "c.example:8443", "p:3128"),
        ({"ALL_PROXY": "http://u:w@p:3128"}, None, "c.example:8443", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "direct", "c.example:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://u:w@q:8080", "c.example:8443", "q:8080"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".example"}, None, "c.example:1", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other"}, None, "c.example:1", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, None, "c.example:1", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*.example"}, None, "c.example:1", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*.example"}, None, "example:1", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "x,10.0.0.0/8"}, None, "10.9.0.7:1", None),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "fd00::/8"}, None, "[fd00::1]:1", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "10.0.0.0/8"}, None, "11.0.0.7:1", "p:3128"),
        ({"HTTPS_PROXY": " http://p:3128 "}, None, "c.example:8443", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "127.0.0.1:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "localhost:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "localhost.:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "127.1:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "0.0.0.0:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "[::ffff:127.0.0.1]:8443", None),
        ({"HTTPS_PROXY": "http://p:3128"}, None, "10.0.0.7:8443", "p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://q:8080", "[::1]:8443", None),
        ({"HTTP_PROXY": "http://p:3128"}, None, "c.example:8443", None),
    ],
)
def test_the_proxy_is_site_yamls_or_the_environments_and_never_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    configured: str | None,
    address: str,
    shown: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_to(address, configured)
    assert (None if found is None else found.shown) == shown


def test_a_proxy_of_another_kind_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://u:secret@p:1080")
    with pytest.raises(ConfigurationError, match=r"p:1080, a proxy of the kind socks5") as error:
        proxy_to("c.example:8443", None)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["http://u:secret@p:port", "http://u:secret@", "http://p:99999"])
def test_what_is_no_url_of_a_proxy_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ConfigurationError, match=r"which is no URL.*http://HOST:PORT") as error:
        proxy_to("c.example:8443", None)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "proxy", ["http://p:99999", "p:3128", "socks5://p:1", "http://p", "none", "http://p:1/x"]
)
def test_site_yaml_takes_no_other_proxy(tmp_path: Path, proxy: str) -> None:
    site = Site(tmp_path)
    site.set_up()
    with site.home.site_yaml.open("a") as file:
        file.write(f"\nproxy: {proxy}\n")
    text = site.home.site_yaml.read_text().replace("\nproxy: null\n", "\n")
    site.home.site_yaml.write_text(text)
    with pytest.raises(ConfigurationError, match="proxy"):
        load_site_config(site.home.site_yaml)


# --- a coordinator that is reached through the proxy alone ------------------------------------


@dataclass(frozen=True)
class Behind:
    folder: Folder
    proxy: ConnectProxy
    address: str  # resolves at the proxy, and nowhere else


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    path = tmp_path_factory.mktemp("behind")
    port, operator = free_ports(2)
    address = f"coordinator.hospital.invalid:{port}"
    settings = new_settings("breast-study", address).model_copy(
        update={"listen": f"127.0.0.1:{port}", "operator": f"127.0.0.1:{operator}"}
    )
    folder = Folder(path / "coordinator")
    set_up(folder, settings)
    with (
        service(folder.path),
        connect_proxy(path / "asked", address, f"127.0.0.1:{port}", "ward:se cret") as proxy,
    ):
        yield Behind(folder, proxy, address)


def invitation(behind: Behind, name: str) -> str:
    operator = Operator(behind.folder)
    try:
        found = operator._call("POST", "/api/invites", {"sites": [name], "hours": 1})["invites"]
    finally:
        operator.close()
    assert isinstance(found, dict)
    return str(found[name])


def accepted(behind: Behind, name: str, heard: str) -> None:
    operator = Operator(behind.folder)
    try:
        operator.accept(name, heard)
    finally:
        operator.close()


def sites(operator: Operator) -> list[dict[str, object]]:
    found = operator.sites()["sites"]
    assert isinstance(found, list)
    return found


def faults(site: Site) -> list[Finding]:
    return [f for f in examine(site.home) if f.state == "wrong"]


def with_images(path: Path) -> Site:
    site = Site(path)
    save(site.data / "1.dcm", image(noise(16, 16)))
    write_labels(site.data, [{"PatientID": "P1", "malignant": 1}])
    return site


@pytest.mark.slow
def test_a_site_joins_and_serves_through_the_proxy_and_doctor_asks_the_same_way(
    behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, line = with_images(tmp_path), invitation(behind, "north")
    ended = site.types("join", line, "--data", site.data)
    assert (ended.status, "Cannot reach" in ended.text) == (7, True)
    monkeypatch.setenv("HTTPS_PROXY", behind.proxy.url(LOGIN))
    ended = site.types("join", line, "--data", site.data)
    assert ended.status == 0, ended.text
    monkeypatch.delenv("HTTPS_PROXY")
    assert load_site_config(site.home.site_yaml).proxy == behind.proxy.url(LOGIN)
    assert LOGIN not in ended.text
    (heard,) = re.findall(r"north=(SHA256:\S+)", ended.text)
    accepted(behind, "north", heard)
    assert faults(site) == []
    daemon = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "start", "--home", str(site.home.folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    operator = Operator(behind.folder)
    try:
        for _ in range(600):
            if any(s["online"] for s in sites(operator)):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the daemon never connected")
    finally:
        operator.close()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
    passed = behind.proxy.asked()
    # TLS begins with 0x16: the proxy sees no more than whom it is asked for.
    assert {(a.target, a.answered, a.first) for a in passed} == {(behind.address, 200, "16")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("login", "target", "said"),
    [
        ("", None, "wants a name and a password"),
        ("ward:wrong", None, "wants a name and a password"),
        (LOGIN, "other.invalid:8443", "let this machine CONNECT there"),
        (None, None, "Compare proxy: in site.yaml"),
    ],
)
def test_doctor_is_not_ready_where_the_daemon_would_not_connect(
    behind: Behind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    login: str | None,
    target: str | None,
    said: str,
) -> None:
    name = f"site-{free_ports(1)[0]}"
    site, line = with_images(tmp_path), invitation(behind, name)
    monkeypatch.setenv("HTTPS_PROXY", behind.proxy.url(LOGIN))
    assert site.types("join", line, "--data", site.data).status == 0
    wrong = "http://127.0.0.1:1" if login is None else behind.proxy.url(login)
    text = site.home.site_yaml.read_text().replace(behind.proxy.url(LOGIN), wrong)
    site.home.site_yaml.write_text(text)
    if target is not None:
        known = site.home.coordinator_json
        known.write_text(known.read_text().replace(behind.address, target))
    (fault,) = [f for f in faults(site) if f.check == "network"]
    assert said in fault.fix + fault.detail
    ended = site.types("doctor")
    assert (ended.status, "Ready." in ended.out) == (1, False)


@pytest.mark.slow
def test_the_coordinators_own_commands_ask_no_proxy(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    operator = Operator(behind.folder)
    try:
        assert "sites" in operator.sites()
    finally:
        operator.close()
