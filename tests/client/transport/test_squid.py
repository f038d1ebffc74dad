"""Squid on the way to the coordinator: names and passwords, and schemes that are not spoken."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.transport.joining import join
from common.platform.errors import Unreachable
from server.enrolment.initialise import set_up
from server.files.coordinator_yaml import new_settings
from server.files.folder import Folder
from server.service.operator_client import Operator
from tests.client.terminals import Site
from tests.peers import library, program
from tests.server.coordinator import free_ports
from tests.server.service_process import service

pytestmark = pytest.mark.slow

HELPERS = Path("/usr/lib/squid")
BASIC = "basic program {helpers}/basic_ncsa_auth {folder}/passwords"
#: Nobody asks these helpers: it is enough that squid offers what they are for.
NEGOTIATE = "negotiate program {helpers}/negotiate_kerberos_auth -s HTTP/localhost"
NTLM = "ntlm program {helpers}/ntlm_fake_auth"


@contextmanager
def squid(hosts: str, schemes: tuple[str, ...]) -> Iterator[int]:
    """Run squid for whoever shows who it is; yields its port."""
    # It gives up root's rights, so a test's own folder would be closed to it.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with _squid(Path(folder), hosts, schemes) as port:
            yield port


@contextmanager
def _squid(folder: Path, hosts: str, schemes: tuple[str, ...]) -> Iterator[int]:
    (port,) = free_ports(1)
    hashed = subprocess.run(
        [program("openssl"), "passwd", "-apr1", "se cret"],
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "passwords").write_text(f"ward:{hashed.stdout}")
    (folder / "hosts").write_text(f"127.0.0.1 {hosts}\n")
    helpers = library(HELPERS / "basic_ncsa_auth", "squid").parent
    lines = [
        f"http_port 127.0.0.1:{port}",
        *(f"auth_param {one.format(helpers=helpers, folder=folder)}" for one in schemes),
        *(f"auth_param {one.split()[0]} children 1 startup=0 idle=1" for one in schemes),
        "acl known proxy_auth REQUIRED",
        "http_access allow known",
        "http_access deny all",
        f"hosts_file {folder}/hosts",
        "dns_nameservers 127.0.0.1",
        "pid_filename none",
        "cache_log /dev/null",
        "access_log none",
        f"coredump_dir {folder}",
        "cache deny all",
        "pinger_enable off",
        "shutdown_lifetime 0 seconds",
    ]
    (folder / "conf").write_text("".join(f"{line}\n" for line in lines))
    with (folder / "out").open("wb") as output:
        process = subprocess.Popen(
            [program("squid"), "-N", "-f", folder / "conf"], stdout=output, stderr=output
        )
    try:
        ends = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "out").read_text()
                assert time.monotonic() < ends
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a Kerberos realm that knows us and squid; its tickets come from keytabs."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        (port,) = free_ports(1)
        (place / "krb5.conf").write_text(
            "[libdefaults]\n default_realm = WARD.TEST\n dns_lookup_kdc = false\n rdns = false\n"
            " dns_canonicalize_hostname = false\n udp_preference_limit = 1\n"
            f"[realms]\n WARD.TEST = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            "[domain_realm]\n localhost = WARD.TEST\n"
        )
        (place / "kdc.conf").write_text(
            f"[realms]\n WARD.TEST = {{\n  database_name = {place}/principal\n"
            f"  key_stash_file = {place}/stash\n  kdc_listen = 127.0.0.1:{port}\n"
            f"  kdc_tcp_listen = 127.0.0.1:{port}\n }}\n"
        )
        for name, value in {
            "KRB5_CONFIG": f"{place}/krb5.conf",
            "KRB5_KDC_PROFILE": f"{place}/kdc.conf",
            "KRB5CCNAME": f"FILE:{place}/tickets",
            "KRB5_CLIENT_KTNAME": f"{place}/ours",
            "KRB5_KTNAME": f"{place}/squids",
            "KRB5RCACHETYPE": "none",
        }.items():
            monkeypatch.setenv(name, value)
        made = [program("kdb5_util"), "create", "-s", "-r", "WARD.TEST", "-P", "master"]
        subprocess.run(made, check=True, capture_output=True)
        for who, keytab in (("ward", "ours"), ("HTTP/localhost", "squids")):
            for asked in (f"addprinc -randkey {who}", f"ktadd -k {place}/{keytab} {who}"):
                typed = [program("kadmin.local"), "-q", asked]
                subprocess.run(typed, check=True, capture_output=True)
        (place / "squids").chmod(0o644)
        centre = subprocess.Popen([program("krb5kdc"), "-n"], stdout=-3, stderr=-3)
        try:
            yield
        finally:
            centre.terminate()
            centre.wait(20)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Folder]]:
    path = tmp_path_factory.mktemp("squid")
    port, operator = free_ports(2)
    found = f"coordinator.hospital.invalid:{port}"  # a name that squid alone knows
    settings = new_settings("breast-study", found).model_copy(
        update={"listen": f"127.0.0.1:{port}", "operator": f"127.0.0.1:{operator}"}
    )
    folder = Folder(path / "coordinator")
    set_up(folder, settings)
    with service(folder.path):
        yield found, folder


def invited(folder: Folder, name: str) -> str:
    operator = Operator(folder)
    try:
        found = operator._call("POST", "/api/invites", {"sites": [name], "hours": 1})["invites"]
    finally:
        operator.close()
    assert isinstance(found, dict)
    return str(found[name])


@pytest.mark.parametrize(
    ("schemes", "login", "said"),
    [
        ((BASIC,), "ward:se%20cret@", None),
        ((BASIC, NTLM, NEGOTIATE), "ward:se%20cret@", None),  # Basic is one that it takes
        ((BASIC,), "", "The proxy wants a name and a password"),
        ((BASIC,), "ward:wrong@", "The proxy wants a name and a password"),
        ((NEGOTIATE, NTLM), "ward:se%20cret@", "(Negotiate, NTLM). It takes Kerberos: write"),
        ((NEGOTIATE,), "", "there is no Kerberos ticket: "),
        ((NTLM,), "", "(NTLM). NTLM is not spoken here"),
    ],
)
def test_a_site_joins_through_squid_by_name_and_password_and_is_told_of_other_schemes(
    address: tuple[str, Folder],
    tmp_path: Path,
    schemes: tuple[str, ...],
    login: str,
    said: str | None,
) -> None:
    host, folder = address
    site = Site(tmp_path)
    name = f"site-{free_ports(1)[0]}"
    with squid(host.partition(":")[0], schemes) as port:
        site.set_up(name=name, proxy=f"http://{login}127.0.0.1:{port}")
        invite = invited(folder, name)
        if said is None:
            assert join(site.home, invite).state == "pending"
            return
        with pytest.raises(Unreachable) as told:
            join(site.home, invite)
    assert said in str(told.value)
    assert "se%20cret" not in str(told.value)
    assert "407" in str(told.value)


@pytest.mark.usefixtures("realm")
def test_a_site_with_a_keytab_joins_through_squid_by_kerberos(
    address: tuple[str, Folder], tmp_path: Path
) -> None:
    host, folder = address
    site = Site(tmp_path)
    with squid(host.partition(":")[0], (NEGOTIATE, NTLM)) as port:
        site.set_up(name="kerberos", proxy=f"http://localhost:{port}")
        assert join(site.home, invited(folder, "kerberos")).state == "pending"
