"""DICOM associations with the PACS (PS3.8).

Nagle's algorithm and delayed acknowledgement cost 40 ms for every image otherwise.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from client.pacs.connection.handshake import (
    CONNECT_SECONDS,
    meaning,
    reach,
    speaks_tls,
    tls_context,
)
from client.pacs.connection.sockets import Entity
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError

#: Transfer syntaxes that every PACS speaks (PS3.5 10.1), ours first.
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
#: What images are stored as otherwise: deflated, JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE.
COMPRESSED = tuple(
    (f"1.2.840.10008.1.2.{end}",)
    for end in (
        "1.99",
        "4.50",
        "4.51",
        "4.57",
        "4.70",
        "4.80",
        "4.81",
        "4.90",
        "4.91",
        "4.201",
        "4.202",
        "4.203",
        "5",
    )
)
#: A PDU is read and written whole, and its fixed cost is the same for a long one.
_PDU_BYTES = 131072
#: Silence after which a peer counts as gone.
NETWORK_SECONDS = 60.0
VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: identifiers are odd and fit in a byte
_STORAGE = "1.2.840.10008.5.1.4.1.1."

#: SOP class and transfer syntaxes of one presentation context.
Proposal = tuple[str, Sequence[str]]
#: Receives one C-STORE of a C-GET and returns its status (PS3.4 table B.2-1).
Store = Callable[[evt.Event], int]


@dataclass
class _Answer:
    """How the PACS refused the request, as the PDU said it when it came.

    pynetdicom 3.0.4 loses a rejection if it reads it and closes the socket before the thread that
    asked has looked at the socket: about one in a hundred on a loaded machine.
    """

    rejection: A_ASSOCIATE_RJ | None = None
    aborted: bool = False
    asked: float = field(default_factory=time.monotonic)

    def note(self, event: evt.Event) -> None:
        """Keep what refuses; called for every PDU until the association stands."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu
        self.aborted = self.aborted or isinstance(event.pdu, A_ABORT_RQ)

    @property
    def late(self) -> bool:
        """Whether the time that an answer may take has gone by."""
        return time.monotonic() - self.asked >= CONNECT_SECONDS


_TRANSIENT = 2  # result of an A-ASSOCIATE-RJ; 1 is permanent
#: (source, reason) of a rejection (PS3.8 table 9-21), and what to do.
_REJECTED = {
    (1, 3): "it does not know our title {own}. Ask the PACS team to register it with this "
    "machine's address",
    (1, 7): "it does not call itself {called}. Compare pacs.called_title with the PACS team's; "
    "capitals count",
    (1, 2): "it does not take DICOM's application context, so it may be no PACS. Compare host and "
    "port",
}


@contextmanager
def associate(
    pacs: PacsConfig,
    classes: Sequence[str],
    *,
    objects: Sequence[Proposal] = (),
    store: Store | None = None,
) -> Iterator[Association]:
    """Yield an association for these SOP classes; it is released, or aborted after an error.

    `objects` are contexts on which a C-GET sends us objects; so are storage classes with `store`,
    which takes them. Unreachable and TrustRefused say who mends it.
    """
    host, port, called = _address(pacs)
    context = tls_context(pacs) if pacs.tls else None
    entity = Entity(ae_title=pacs.own_title)
    entity.maximum_pdu_size = _PDU_BYTES
    entity.connection_timeout = entity.acse_timeout = CONNECT_SECONDS
    entity.network_timeout = entity.dimse_timeout = NETWORK_SECONDS
    received = [c for c in classes if store is not None and c.startswith(_STORAGE)]
    received += [c for c, _ in objects]
    roles = [build_role(c, scu_role=False, scp_role=True) for c in dict.fromkeys(received)]
    answer = _Answer()
    handlers: list[evt.EventHandlerType] = [(evt.EVT_PDU_RECV, answer.note)]
    if store is not None:
        handlers.append((evt.EVT_C_STORE, store))
    try:
        association = entity.associate(
            host,
            port,
            contexts=_contexts(classes, objects),
            ae_title=called,
            ext_neg=[*roles] or None,
            max_pdu=_PDU_BYTES,
            tls_args=(context, host) if context else None,
            evt_handlers=handlers,
        )
    except OSError as error:  # the host's name has no address
        raise meaning(host, port, error, secured=pacs.tls) from error
    if not association.is_established:
        raise _refusal(pacs, association, answer, context)
    association.unbind(evt.EVT_PDU_RECV, answer.note)
    try:
        accepted = {str(c.abstract_syntax) for c in association.accepted_contexts}
        if objects and not accepted.issuperset(classes):
            raise _no_service(pacs)
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def _contexts(classes: Sequence[str], objects: Sequence[Proposal]) -> list[PresentationContext]:
    wanted = [*((uid, UNCOMPRESSED) for uid in dict.fromkeys(classes)), *objects]
    return [build_context(uid, list(syntaxes)) for uid, syntaxes in wanted][:MOST_CONTEXTS]


def _address(pacs: PacsConfig) -> tuple[str, int, str]:
    if pacs.host is None or pacs.port is None or pacs.called_title is None:
        message = (
            "pacs has no host, port and called_title, which DICOM associations need. Ask the PACS "
            "team for them and write them in site.yaml."
        )
        raise ConfigurationError(message)
    return pacs.host, pacs.port, pacs.called_title


def _refusal(
    pacs: PacsConfig, association: Association, answer: _Answer, context: ssl.SSLContext | None
) -> WardroundError:
    """Say why there is no association."""
    host, port, called = _address(pacs)
    place = f"{called} at {host}:{port}"
    if answer.rejection is not None:
        return _rejected(pacs, place, answer.rejection)
    fault = reach(host, port, context)
    if fault is not None:
        return fault
    if association.rejected_contexts and not association.accepted_contexts:
        return _no_service(pacs)
    if answer.aborted:
        message = (
            f"The PACS {place} aborts the association without a reason. Ask the PACS team what its "
            f"log says of {pacs.own_title}."
        )
        return Unreachable(message)
    if context is None and speaks_tls(host, port):
        return TrustRefused(f"The PACS {place} speaks TLS there. Write tls: true in pacs.")
    said = (
        f"takes connections but did not answer the association within {CONNECT_SECONDS:.0f} s"
        if answer.late
        else "closed the connection without an answer"
    )
    message = (
        f"The PACS {place} {said}. Compare pacs.port with the "
        "PACS team's DICOM port, which is not that of its web pages, or ask what its log says."
    )
    return Unreachable(message)


def _no_service(pacs: PacsConfig) -> TrustRefused:
    host, port, called = _address(pacs)
    message = (
        f"The PACS {called} at {host}:{port} does not take a service that is needed here. Ask the "
        f"PACS team to allow query and retrieve (C-FIND, C-GET or C-MOVE) to {pacs.own_title}."
    )
    return TrustRefused(message)


def _rejected(pacs: PacsConfig, place: str, said: A_ASSOCIATE_RJ) -> WardroundError:
    """Return what a rejection means (PS3.8 table 9-21)."""
    if said.result == _TRANSIENT:
        message = (
            f"The PACS {place} takes no more associations now. Wait, or write a smaller "
            "pacs.associations."
        )
        return Unreachable(message)
    key = (said.source or 0, said.reason_diagnostic or 0)
    advice = _REJECTED.get(key, "it gave no reason that says more. Ask the PACS team")
    advice = advice.format(own=pacs.own_title, called=pacs.called_title)
    return TrustRefused(f"The PACS {place} rejects the association: {advice}.")
