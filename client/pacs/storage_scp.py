"""Our storage SCP (PS3.4 annex B): for C-MOVE, and for studies to be scored."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseServer

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE

from client.pacs.connection.association import NETWORK_SECONDS, VERIFICATION
from client.pacs.connection.caller_limits import LIMITS
from client.pacs.connection.handshake import tls_context
from client.pacs.connection.sockets import Entity, Listener
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, Unreachable


@contextmanager
def listen(
    pacs: PacsConfig,
    store: Callable[[evt.Event], int],
    *,
    address: str | None = None,
    only_pacs: bool = True,
) -> Iterator[int]:
    """Give each C-STORE request on own_port to `store`, until left; yields the port.

    `store` returns the status (PS3.4 table B.2-1), from the association's thread. What is taken and
    what refused is decided there: of a pull in client/pacs/cmove.py, of studies to be scored in
    client/inference/arrivals/intake.py. `address` is what the port is bound to (None:
    pacs.own_address, and all of this machine's without that). With `only_pacs`, only the PACS's
    title may call. Unreachable when the port is taken.
    """
    if pacs.own_port is None:
        message = "pacs has no own_port on which images come in. Choose one, and write it there."
        raise ConfigurationError(message)
    entity = _entity(pacs, only_pacs=only_pacs)
    bound = address or pacs.own_address or ""

    def stored(event: evt.Event) -> int:
        try:
            return store(event)
        finally:
            data = event.request.DataSet if isinstance(event.request, C_STORE) else None
            size = 0 if data is None else data.getbuffer().nbytes
            assert isinstance(server, Listener)  # noqa: S101 - made so
            server.callers.stored(event.assoc, size)

    try:
        server = entity.make_server(
            (bound, pacs.own_port),
            ssl_context=_server_context(pacs),
            server_class=Listener,
            evt_handlers=[(evt.EVT_C_STORE, stored)],
        )
    except OSError as error:
        message = (
            f"Cannot listen on port {pacs.own_port} ({bound or 'all addresses'}): "
            f"{error.strerror}. End what listens there, or write another pacs.own_port."
        )
        raise Unreachable(message) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield pacs.own_port
    finally:
        BaseServer.shutdown(server)
        server.server_close()
        thread.join()
        for association in server.active_associations:
            association.abort()


def _entity(pacs: PacsConfig, *, only_pacs: bool) -> Entity:
    entity = Entity(ae_title=pacs.own_title)
    entity.require_called_aet = True
    if only_pacs and pacs.called_title is not None:
        entity.require_calling_aet = [pacs.called_title]
    entity.maximum_pdu_size = 131072
    entity.network_timeout = entity.dimse_timeout = NETWORK_SECONDS
    entity.acse_timeout = LIMITS.opening_seconds
    # Who is cut when there are too many is decided in client/pacs/connection/caller_limits.py.
    # Callers bounds the connections; the threads of those that it cut live on for a moment, and
    # must not have the PACS turned away meanwhile.
    entity.maximum_associations = 2 * LIMITS.connections
    entity.add_supported_context(VERIFICATION)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    return entity


def _server_context(pacs: PacsConfig) -> ssl.SSLContext | None:
    """Return TLS for the PACS's connections to us: it must show a certificate as well."""
    if not pacs.tls:
        return None
    if pacs.certificate is None or pacs.key is None:
        message = (
            "pacs.tls is on, and what sends to us needs our certificate: write pacs.certificate "
            "and pacs.key."
        )
        raise ConfigurationError(message)
    tls_context(pacs)  # says which file cannot be used
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pacs.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pacs.certificate, pacs.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
