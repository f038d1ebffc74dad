"""HL7 v2 messages by MLLP: one is sent, and its acknowledgement read (HL7 2.5.1, 2.9 and C.2).

Guarantee: a message whose acknowledgement was read is not sent again, also after a restart: the
receipt lies beside the report. Where a crash or a cut came between sending and receipt it is sent
again as it was, with the same control id, by which a receiver knows it. Nothing else can be had:
the protocol knows no question.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydicom import dcmread

from client.pacs.receivers.oru_message import oru_message
from client.pacs.sending.delivery import Delivered, State
from client.results.identity import Kind
from client.results.writing import Result
from client.site.plain_text import shown
from client.site.results_section import Hl7Receiver
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError, ConfigurationError, TrustRefused, Unreachable

_START, _END = b"\x0b", b"\x1c\x0d"
_LARGEST_ANSWER = 1 << 16  # bytes
#: MSA-1 (table HL70008): taken, in original and in enhanced mode.
_TAKEN = frozenset({"AA", "CA"})
_REFUSED = {"AE": "an error", "CE": "an error", "AR": "a refusal", "CR": "a refusal"}


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """What a receiver says of a message."""

    code: str  # MSA-1
    control: str  # MSA-2: the message that it is of
    text: str  # MSA-3, or what ERR says


def deliver_hl7(result: Result, receiver: Hl7Receiver) -> Delivered:
    """Send a report as ORU^R01 and keep the receipt; once it is there, nothing is sent.

    Raises Unreachable, TrustRefused or ConfigurationError where there is no answer.
    """
    where = f"HL7 {receiver.host}:{receiver.port}"
    try:
        bundle = json.loads(result.path.read_bytes())
        header = dcmread(_beside(result), stop_before_pixels=True)
        message, control = oru_message(bundle, header, receiver)
    except (CohortError, OSError) as problem:
        return Delivered(result=result, state=State.FAILED, detail=str(problem), where=where)
    receipt = result.path.with_suffix(".hl7-receipt.json")
    said = {"receiver": where, "message": hashlib.sha256(message).hexdigest()}
    if said in _receipts(receipt):
        return Delivered(result=result, state=State.TAKEN_BEFORE, where=where)
    answer = exchange(message, receiver)
    if answer.control != control:
        detail = (
            f"The receiver acknowledged the message {answer.control[:20]!r}, not {control}: "
            "whether it has ours is not known. Send again; it is the same message."
        )
        return Delivered(result=result, state=State.FAILED, detail=detail, where=where)
    if answer.code not in _TAKEN:
        what = _REFUSED.get(answer.code, f"the unknown code {answer.code[:10]!r}")
        why = answer.text or "no reason"
        detail = f"The receiver answers with {what} ({answer.code[:10]}): {why}."
        return Delivered(result=result, state=State.FAILED, detail=detail, where=where)
    kept = json.dumps([*_receipts(receipt), said], indent=1).encode()
    replace_durably(receipt, kept, mode=0o600)
    return Delivered(result=result, state=State.TAKEN, where=where)


def _beside(result: Result) -> Path:
    """Return the SR of the same score."""
    name = result.path.name.removeprefix(Kind.DIAGNOSTIC_REPORT.value)
    return result.path.with_name(f"{Kind.REPORT.value}{name}").with_suffix(".dcm")


def _receipts(path: Path) -> list[dict[str, str]]:
    try:
        return cast("list[dict[str, str]]", json.loads(path.read_bytes()))
    except FileNotFoundError:
        return []


def exchange(message: bytes, receiver: Hl7Receiver) -> Acknowledgement:
    """Send a message and return its acknowledgement; Unreachable where none comes."""
    where = f"{receiver.host}:{receiver.port}"
    try:
        address, seconds = (receiver.host, receiver.port), receiver.timeout_seconds
        with (
            socket.create_connection(address, timeout=seconds) as plain,
            _secured(plain, receiver) as line,
        ):
            line.sendall(_START + message + _END)
            content = _read(line)
    except ssl.SSLCertVerificationError as error:
        message_ = (
            f"The HL7 receiver at {where} is not trusted: {error.verify_message}. Compare "
            "results.hl7.authority with the authority that signed its certificate."
        )
        raise TrustRefused(message_) from error
    except (OSError, ssl.SSLError) as error:
        what = "does not answer in time" if isinstance(error, TimeoutError) else "is not reached"
        message_ = (
            f"The HL7 receiver at {where} {what} ({type(error).__name__}). Look whether it runs "
            "and can be reached from here, and send again: it is the same message."
        )
        raise Unreachable(message_) from error
    if content is None:
        message_ = (
            f"The HL7 receiver at {where} sent no whole acknowledgement. Ask its admin whether the "
            "port speaks MLLP (and TLS: results.hl7.tls), and send again: it is the same message."
        )
        raise Unreachable(message_)
    return read_acknowledgement(content, receiver)


def _secured(plain: socket.socket, receiver: Hl7Receiver) -> socket.socket:
    if not receiver.tls:
        return plain
    try:
        context = ssl.create_default_context(
            cafile=str(receiver.authority) if receiver.authority else None
        )
        if receiver.certificate is not None:
            context.load_cert_chain(receiver.certificate, receiver.key)
    except (OSError, ssl.SSLError) as error:
        message = f"Cannot read authority, certificate or key of results.hl7: {error}."
        raise ConfigurationError(message) from error
    return context.wrap_socket(plain, server_hostname=receiver.host)


def _read(line: socket.socket) -> bytes | None:
    """Return what stands between MLLP's marks; None where they do not come."""
    held = b""
    while not held.endswith(_END):
        part = line.recv(4096)
        held += part
        if not part or len(held) > _LARGEST_ANSWER or not held.startswith(_START):
            return None
    return held[len(_START) : -len(_END)]


def read_acknowledgement(content: bytes, receiver: Hl7Receiver) -> Acknowledgement:
    """Read an ACK by the separators that its own MSH names; Unreachable where it is none."""
    text = content.decode("utf-8", "replace")
    segments = [one for one in text.replace("\n", "\r").split("\r") if one]
    if segments and segments[0].startswith("MSH") and len(segments[0]) > 4:
        bar = segments[0][3]
        fields = {one.split(bar)[0]: one.split(bar) for one in reversed(segments)}
        said = fields.get("MSA", [])
        if len(said) > 2:
            error = fields.get("ERR", [])
            reason = said[3] if len(said) > 3 and said[3] else error[8] if len(error) > 8 else ""
            return Acknowledgement(
                code=said[1].strip(), control=said[2].strip(), text=shown(reason)[:200]
            )
    message = (
        f"The HL7 receiver at {receiver.host}:{receiver.port} answers with what is no HL7 "
        "acknowledgement. Ask its admin what listens there."
    )
    raise Unreachable(message)
