"""PACS beside Orthanc: dcmtk's dcmqrscp, pynetdicom's qrscp, and tiny_pacs with DICOMweb.

    with dcmqrscp(folder, files) as peer:
        Site(...).pull(peer.config("c-get"))

Each keeps copies of the files, listens on loopback, and is ended by its own process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE

from client.site.pacs_section import PacsConfig
from tests.client.pacs.authority import Identity
from tests.client.pacs.orthanc import free_port, loopback_only
from tests.peers import program

_SECONDS = 60.0


@dataclass(frozen=True)
class Peer:
    """What its admin could tell us of it."""

    title: str
    port: int  # DICOM
    own_port: int  # where it sends what is moved to WARDROUND
    web_port: int | None = None  # of /dicomweb

    def config(self, route: str, **changes: object) -> PacsConfig:
        """Return site.yaml's section for it."""
        content: dict[str, object] = {
            "route": route,
            "url": f"http://127.0.0.1:{self.web_port}/dicomweb",
            "host": "127.0.0.1",
            "port": self.port,
            "called_title": self.title,
            "own_address": "127.0.0.1",
            "own_port": self.own_port,
        }
        return PacsConfig.model_validate(content | changes)


@contextmanager
def dcmqrscp(folder: Path, files: Sequence[Path]) -> Iterator[Peer]:
    """Yield dcmtk's, which leaves SOPClassUID and all counts out of its answers."""
    peer = Peer("DCMQRSCP", free_port(), free_port())
    area, config = folder / "area", folder / "dcmqrscp.cfg"
    area.mkdir(parents=True)
    kept = [shutil.copy(path, area / f"{n}.dcm") for n, path in enumerate(files)]
    subprocess.run([program("dcmqridx"), str(area), *map(str, kept)], check=True)
    config.write_text(
        f"NetworkTCPPort = {peer.port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nsite = (WARDROUND, 127.0.0.1, {peer.own_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{peer.title} {area} RW (500, 1024mb) ANY\nAETable END\n"
    )
    # Else it takes compressed images from nobody and gives them to nobody.
    command = [
        program("dcmqrscp"),
        "--prefer-j2k-lossless",
        "--propose-j2k-lossless",
        "-c",
        str(config),
    ]
    with _started(command, peer.port, {"LD_PRELOAD": str(loopback_only())}):
        yield peer


@contextmanager
def qrscp(folder: Path, files: Sequence[Path]) -> Iterator[Peer]:
    """Yield pynetdicom's, which answers with a match for each image at every level."""
    peer = Peer("QRSCP", free_port(), free_port())
    folder.mkdir(parents=True)
    config = folder / "qrscp.ini"
    config.write_text(
        f"[DEFAULT]\nae_title: {peer.title}\nport: {peer.port}\nmax_pdu: 16382\n"
        "acse_timeout: 30\ndimse_timeout: 30\nnetwork_timeout: 30\nbind_address: 127.0.0.1\n"
        f"instance_location: {folder / 'instances'}\n"
        f"database_location: {folder / 'instances.sqlite'}\nlog_identifier: False\n"
        f"[WARDROUND]\naddress: 127.0.0.1\nport: {peer.own_port}\n"
    )
    command = [sys.executable, "-m", "pynetdicom", "qrscp", "-q", "-c", str(config)]
    with _started(command, peer.port):
        _store(peer, files)
        yield peer


@contextmanager
def tiny_pacs(folder: Path, files: Sequence[Path]) -> Iterator[Peer]:
    """Yield tiny_pacs, with its DICOMweb."""
    web = free_port()
    peer = Peer("TINY_PACS", free_port(), free_port(), web)
    folder.mkdir(parents=True)
    config = folder / "tiny.json"
    components = {
        "Database": {"on": True},
        "Devices": {
            "on": True,
            "devices": {
                "WARDROUND": {"aet": "WARDROUND", "address": "127.0.0.1", "port": peer.own_port}
            },
        },
        "PACS": {"on": True},
        "InMemoryStorage": {"on": False},
        "FileStorage": {"on": True, "storage_dir": str(folder / "storage")},
        "HttpServer": {"on": True, "host": "127.0.0.1", "port": web},
        "DICOMWeb": {"on": True},
    }
    config.write_text(
        json.dumps({"ae": {"ae_title": peer.title, "port": peer.port}, "components": components})
    )
    command = [sys.executable, "-m", "tiny_pacs", "run", "-c", str(config)]
    with _started(command, peer.port, {"LD_PRELOAD": str(loopback_only())}):
        _until_open(web)
        _store(peer, files)
        yield peer


@contextmanager
def behind_tls(port: int, identity: Identity, wanted: Identity) -> Iterator[int]:
    """Yield a port on which a peer is reached by TLS that asks for a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(wanted.authority))
    context.load_cert_chain(identity.certificate, identity.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve_tls, args=(listening, context, port), daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def _serve_tls(listening: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(plain, context, port), daemon=True).start()


def _relay(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        suppress(OSError),
        plain,
        context.wrap_socket(plain, server_side=True) as secured,
        socket.create_connection(("127.0.0.1", port)) as peer,
    ):
        back = threading.Thread(target=_pump, args=(peer, secured), daemon=True)
        back.start()
        _pump(secured, peer)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def _started(
    command: Sequence[str], port: int, environment: dict[str, str] | None = None
) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env={**os.environ, "TCP_NODELAY": "1", **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _until_open(port, process)
        yield
    finally:
        # dcmqrscp has a process for each association; alone (--single-process) 3.6.7 crashes.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_open(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process is None or process.poll() is None, "the peer ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _store(peer: Peer, files: Sequence[Path]) -> None:
    """Send files as they are."""
    datasets = [dcmread(path) for path in files]
    entity = AE("WARDROUND")
    kinds = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}
    for sop_class, syntax in kinds:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", peer.port, ae_title=peer.title)
    assert association.is_established
    for one in datasets:
        assert association.send_c_store(one).Status == 0
    association.release()
