"""The real Orthanc as a test's PACS: on loopback, killed and started again at will.

    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", 11112)}) as pacs:
        pacs.store(files)

It asks for a password over HTTP, checks the called AE title, and answers registered calling
titles only, as a hospital's PACS does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx

from tests.client.pacs.authority import Identity
from tests.peers import DICOMWEB, library, program

USER, PASSWORD = "wardround", "a password of the test"
Address = tuple[str, int]  # host, port
_START_SECONDS = 20.0


class Pacs:
    """A running Orthanc, and what its admin could tell us of it."""

    def __init__(self, folder: Path, content: Mapping[str, object], https: Identity | None) -> None:
        self.folder = folder
        self.called_title = str(content["DicomAet"])
        self.http_port, self.dicom_port = _free_ports(2)
        self.user = USER
        self.password_file = folder / "password"
        self.log = folder / "orthanc.log"  # every HTTP and DICOM request
        self.scheme = "https" if https else "http"
        self._config = folder / "orthanc.json"
        self._process: subprocess.Popen[bytes] | None = None
        verify = ssl.create_default_context(cafile=https.authority) if https else False
        if isinstance(verify, ssl.SSLContext):
            verify.check_hostname = False  # the certificate may lack names on purpose
        self._client = httpx.Client(
            base_url=f"{self.scheme}://127.0.0.1:{self.http_port}",
            auth=(USER, PASSWORD),
            verify=verify,
            timeout=60,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        ports = {"HttpPort": self.http_port, "DicomPort": self.dicom_port}
        self._config.write_text(json.dumps({**content, **ports}, indent=1))

    @property
    def url(self) -> str:
        """DICOMweb's root."""
        return f"{self.scheme}://127.0.0.1:{self.http_port}/dicom-web"

    @property
    def pid(self) -> int:
        """Orthanc's process."""
        assert self._process is not None
        return self._process.pid

    def start_again(self) -> None:
        """Start on the same storage and ports, and wait until both listeners answer."""
        assert self._process is None
        server = program("Orthanc")
        environment = {**os.environ, "TCP_NODELAY": "1", "LD_PRELOAD": str(loopback_only())}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [server, "--verbose-http", "--verbose-dicom", str(self._config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                message = f"Orthanc did not start: {self.log.read_text()[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._client.close()

    def store(self, paths: Iterable[Path]) -> None:
        """Put files in, as they are."""
        for path in paths:
            self._client.post("/instances", content=path.read_bytes()).raise_for_status()

    def rest(self, path: str, **asked: str) -> object:
        """Return what Orthanc's own interface says, such as /statistics."""
        return self._client.get(path, params=asked).raise_for_status().json()

    def file(self, sop_instance_uid: str) -> bytes:
        """Return the stored file of an instance."""
        found = self._client.post("/tools/lookup", content=sop_instance_uid).raise_for_status()
        (one,) = [entry["ID"] for entry in found.json() if entry["Type"] == "Instance"]
        return self._client.get(f"/instances/{one}/file").raise_for_status().content

    def send(self, sop_instance_uid: str, title: str) -> None:
        """Send an instance to a peer by C-STORE."""
        found = self._client.post("/tools/lookup", content=sop_instance_uid).raise_for_status()
        (one,) = [entry["ID"] for entry in found.json() if entry["Type"] == "Instance"]
        self._client.post(f"/modalities/{title}/store", content=one).raise_for_status()

    def delete(self, sop_instance_uid: str) -> None:
        """Take an instance out."""
        found = self._client.post("/tools/lookup", content=sop_instance_uid).raise_for_status()
        for entry in found.json():
            self._client.delete(f"/instances/{entry['ID']}").raise_for_status()

    def _answers(self) -> bool:
        try:
            self._client.get("/system").raise_for_status()
            socket.create_connection(("127.0.0.1", self.dicom_port), timeout=1).close()
        except (httpx.HTTPError, OSError):
            return False
        return True


@contextmanager
def orthanc(
    folder: Path,
    *,
    called_title: str = "LABPACS",
    peers: Mapping[str, Address] | None = None,
    tls: Identity | None = None,
    https: Identity | None = None,
    settings: Mapping[str, object] | None = None,
) -> Iterator[Pacs]:
    """Yield a PACS that knows these peers by AE title.

    `tls`: DICOM TLS that also wants the peer's certificate. `https`: DICOMweb over TLS.
    `settings` overrides Orthanc's own, such as {"DicomAlwaysAllowGet": True}.
    """
    pacs = Pacs(folder, _content(folder, called_title, peers or {}, tls, https, settings), https)
    pacs.start_again()
    try:
        yield pacs
    finally:
        pacs.close()


def _content(
    folder: Path,
    called_title: str,
    peers: Mapping[str, Address],
    tls: Identity | None,
    https: Identity | None,
    settings: Mapping[str, object] | None,
) -> dict[str, object]:
    what = ("Echo", "Find", "Get", "Move", "Store")
    refused = {f"DicomAlwaysAllow{one}": False for one in what}
    allowed = {f"Allow{one}": True for one in what}
    content: dict[str, object] = {
        "DicomAet": called_title,
        "DicomCheckCalledAet": True,
        **refused,
        "DicomModalities": {
            title: {
                "AET": title,
                "Host": host,
                "Port": port,
                "UseDicomTls": tls is not None,
                **allowed,
            }
            for title, (host, port) in peers.items()
        },
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(library(DICOMWEB, "orthanc-dicomweb").parent)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "StableAge": 1,
        "KeepAlive": True,
        "TcpNoDelay": True,
        "SyncStorageArea": False,
        "MaximumPduLength": 131072,
    }
    if tls is not None:
        content |= {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(tls.certificate),
            "DicomTlsPrivateKey": str(tls.key),
            "DicomTlsTrustedCertificates": str(tls.authority),
            "DicomTlsRemoteCertificateRequired": True,
        }
    if https is not None:
        content |= {"SslEnabled": True, "SslCertificate": str(https.together)}
    return {**content, **(settings or {})}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    return _free_ports(1)[0]


def _free_ports(count: int) -> list[int]:
    """Return ports that differ: all are held before any is given back."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for one in held:
        one.close()
    return ports


@cache
def loopback_only() -> Path:
    """Compile the shim once a process; its folder outlives the tests as other temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="loopback-only-"))
    compiler = program("gcc")
    library(Path("/usr/include/stdlib.h"), "libc6-dev")
    source = Path(__file__).with_name("loopback_only.c")
    made = folder / "loopback_only.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True
    )
    return made
