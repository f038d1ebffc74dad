"""Associations with the real Orthanc, and why there are none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.pacs.connection.association import VERIFICATION, associate
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching
from tests.client.pacs.receiving import receive

pytestmark = pytest.mark.processes

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Secured:
    """A PACS that speaks TLS, and what a site needs for it."""

    pacs: Pacs
    config: PacsConfig
    authority: HospitalAuthority


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = HospitalAuthority(folder / "ca")
    port = free_port()
    with orthanc(folder, tls=authority.issue(), peers={"WARDROUND": ("127.0.0.1", port)}) as pacs:
        own = authority.issue("WARDROUND")
        config = reaching(
            pacs,
            "c-get",
            tls=True,
            authority=authority.pem,
            certificate=own.certificate,
            key=own.key,
            own_port=port,
        )
        yield Secured(pacs, config, authority)


def changed(config: PacsConfig, **changes: object) -> PacsConfig:
    return PacsConfig.model_validate({**config.model_dump(), **changes})


def refusal(config: PacsConfig) -> WardroundError:
    with pytest.raises(WardroundError) as raised, associate(config, [VERIFICATION]):
        pass
    return raised.value


def echo(config: PacsConfig) -> int:
    with associate(config, [VERIFICATION]) as association:
        assert association.dul.socket is not None
        assert association.dul.socket.socket is not None
        # Without it every image waits 40 ms for an acknowledgement.
        assert association.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return int(association.send_c_echo().Status)


def test_the_pacs_answers_an_echo_without_nagle(pacs: Pacs) -> None:
    assert echo(reaching(pacs, "c-get")) == 0


def test_a_wrong_called_title_is_named(pacs: Pacs) -> None:
    error = refusal(reaching(pacs, "c-get", called_title="OTHERPACS"))
    assert isinstance(error, TrustRefused)
    assert "does not call itself OTHERPACS. Compare pacs.called_title" in str(error)


class _Overtaken(threading.Event):
    """Lets the reader of the socket finish before the thread that asked goes on."""

    def wait(self, timeout: float | None = None) -> bool:
        ready = super().wait(timeout)
        time.sleep(0.3)
        return ready


def test_a_rejection_that_overtakes_the_requester_is_named(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken = SimpleNamespace(**{**vars(threading), "Event": _Overtaken})
    monkeypatch.setattr("pynetdicom.transport.threading", overtaken)
    error = refusal(reaching(pacs, "c-get", called_title="OTHERPACS"))
    assert isinstance(error, TrustRefused)
    assert "does not call itself OTHERPACS" in str(error)


A_ABORT = bytes.fromhex("07 00 00 00 00 04 00 00 00 00")  # PS3.8 table 9-26


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Yield the port of something that is no PACS: it answers with these bytes, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as kept:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.enter_context(connection)
                if answer is not None and connection.recv(4096):
                    connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        serving.join()


def test_an_abort_is_named(pacs: Pacs) -> None:
    with listener(A_ABORT) as port:
        error = refusal(reaching(pacs, "c-get", port=port))
    assert isinstance(error, Unreachable)
    assert "aborts the association without a reason" in str(error)


def test_silence_is_not_called_a_closed_connection(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.pacs.connection.association.CONNECT_SECONDS", 0.4)
    monkeypatch.setattr("client.pacs.connection.handshake._SILENT_SECONDS", 0.2)
    with listener(None) as port:
        error = refusal(reaching(pacs, "c-get", port=port))
    assert isinstance(error, Unreachable)
    assert "takes connections but did not answer the association within" in str(error)


def test_a_closed_port_is_named(pacs: Pacs) -> None:
    port = free_port()
    error = refusal(reaching(pacs, "c-get", port=port))
    assert isinstance(error, Unreachable)
    assert f"127.0.0.1:{port} is not reached: Connection refused" in str(error)


def test_an_unknown_host_is_named(pacs: Pacs) -> None:
    error = refusal(reaching(pacs, "c-get", host="pacs.invalid"))
    assert isinstance(error, Unreachable)
    assert "pacs.invalid is not known here" in str(error)


def test_dicom_tls_with_certificates_of_both_sides(secured: Secured) -> None:
    assert echo(secured.config) == 0


def test_an_expected_certificate_of_ours_is_asked_for(secured: Secured) -> None:
    error = refusal(changed(secured.config, certificate=None, key=None))
    assert isinstance(error, TrustRefused)
    assert "It may want a certificate of ours" in str(error)


def test_another_hospitals_authority_is_not_believed(secured: Secured, tmp_path: Path) -> None:
    other = HospitalAuthority(tmp_path, "Other")
    error = refusal(changed(secured.config, authority=other.pem))
    assert isinstance(error, TrustRefused)
    assert "is not signed by the authority that pacs.authority names" in str(error)


def test_plain_dicom_to_a_port_with_tls_says_so(secured: Secured) -> None:
    error = refusal(changed(secured.config, tls=False))
    assert isinstance(error, TrustRefused)
    assert "speaks TLS there. Write tls: true" in str(error)


def test_tls_to_a_plain_port_says_so(pacs: Pacs, secured: Secured) -> None:
    error = refusal(changed(secured.config, port=pacs.dicom_port))
    assert isinstance(error, TrustRefused)
    assert "does not speak TLS there" in str(error)


def test_a_certificate_for_another_name_or_for_none_is_told_apart(tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    own = authority.issue("WARDROUND")
    with orthanc(tmp_path, tls=authority.issue(with_names=False)) as pacs:
        error = refusal(
            reaching(
                pacs,
                "c-get",
                tls=True,
                authority=authority.pem,
                certificate=own.certificate,
                key=own.key,
            )
        )
    assert isinstance(error, TrustRefused)
    assert "names no host (it has no subjectAltName)" in str(error)


def test_an_authority_that_is_no_certificate_is_named(pacs: Pacs, tmp_path: Path) -> None:
    wrong = tmp_path / "authority.pem"
    wrong.write_text("not PEM")
    for config in (
        reaching(pacs, "c-get", tls=True, authority=wrong),
        reaching(pacs, "c-get", tls=True, authority=tmp_path / "missing.pem"),
    ):
        error = refusal(config)
        assert isinstance(error, ConfigurationError)
        assert str(config.authority) in str(error)


def test_what_is_sent_to_us_lands_and_is_told(pacs: Pacs, own_port: int, tmp_path: Path) -> None:
    dataset = image(noise(16, 16), patient="sent")
    pacs.store([save(tmp_path / "a.dcm", dataset)])
    arrived: list[Path] = []
    config = reaching(pacs, "c-move", own_port=own_port)
    with receive(config, tmp_path / "data", arrived.append):
        pacs.send(dataset.SOPInstanceUID, "WARDROUND")
    (path,) = arrived
    assert path.read_bytes()[132:] != b""
    assert path.stem == dataset.SOPInstanceUID


def test_what_is_sent_over_tls_lands(secured: Secured, tmp_path: Path) -> None:
    dataset = image(noise(16, 16), patient="sent over TLS")
    secured.pacs.store([save(tmp_path / "a.dcm", dataset)])
    arrived: list[Path] = []
    with receive(secured.config, tmp_path / "data", arrived.append):
        secured.pacs.send(dataset.SOPInstanceUID, "WARDROUND")
    assert [path.stem for path in arrived] == [dataset.SOPInstanceUID]


def test_nobody_but_the_pacs_may_send(pacs: Pacs, own_port: int, tmp_path: Path) -> None:
    config = reaching(pacs, "c-move", own_port=own_port)
    stranger = changed(config, port=own_port, called_title="WARDROUND", own_title="STRANGER")
    with receive(config, tmp_path, lambda _path: None):
        assert "does not know our title STRANGER" in str(refusal(stranger))
    with receive(config, tmp_path, lambda _path: None, only_pacs=False):
        assert echo(stranger) == 0


def test_a_port_that_is_taken_is_named(pacs: Pacs, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(Unreachable, match=f"Cannot listen on port {port}"),
            receive(reaching(pacs, "c-move", own_port=port), tmp_path, lambda _path: None),
        ):
            pass


def test_a_connection_that_says_nothing_keeps_nobody_out(
    pacs: Pacs, secured: Secured, own_port: int, tmp_path: Path
) -> None:
    for config in (reaching(pacs, "c-move", own_port=own_port), secured.config):
        caller = changed(config, port=config.own_port, called_title="WARDROUND")
        answers: list[int] = []
        with receive(config, tmp_path, lambda _path: None, only_pacs=False):
            with socket.create_connection(("127.0.0.1", config.own_port or 0)):
                thread = threading.Thread(target=_ask, args=(caller, answers))
                thread.start()
                thread.join(8)
                assert answers == [0]
            thread.join()


def _ask(caller: PacsConfig, answers: list[int]) -> None:
    answers.append(echo(caller))
