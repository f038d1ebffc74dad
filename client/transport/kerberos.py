"""Kerberos ticket for a proxy (Negotiate, RFC 4559), by the system's own library.

Tickets are the system's matter: whoever runs the service types `kinit`, or names a keytab in
KRB5_CLIENT_KTNAME, from which MIT's library takes one by itself. PyPI has bindings to that library
as sources alone, which are not installed here, so its few functions are called directly.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_int, c_size_t, c_uint32, c_void_p, string_at

_LIBRARY = "libgssapi_krb5.so.2"
#: SPNEGO, 1.3.6.1.5.5.2 (RFC 4178).
_SPNEGO = bytes.fromhex("2b0601050502")
#: Bits of a major status that are errors (RFC 2744, 3.9.1).
_ERRORS = 0xFFFF0000
_GSS_CODE, _MECHANISM_CODE = 1, 2


class NoTicket(Exception):
    """There is no ticket for a host, or nothing that could get one; the text says why."""


class _Buffer(ctypes.Structure):
    _fields_ = (("length", c_size_t), ("value", c_void_p))


class _Oid(ctypes.Structure):
    _fields_ = (("length", c_uint32), ("elements", c_void_p))


def ticket(host: str) -> bytes:
    """Return a token for the service HTTP@HOST, made anew for each connection; NoTicket."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        message = f"{_LIBRARY} is not installed (Debian: libgssapi-krb5-2)"
        raise NoTicket(message) from error
    minor, name, context, token = c_uint32(), c_void_p(), c_void_p(), _Buffer()
    try:
        _import_name(library, f"HTTP@{host}".encode(), name)
        kept = ctypes.create_string_buffer(_SPNEGO, len(_SPNEGO))
        spnego = _Oid(len(_SPNEGO), ctypes.cast(kept, c_void_p))
        major = library.gss_init_sec_context(
            *(byref(minor), None, byref(context), name, byref(spnego)),
            *(c_uint32(0), c_uint32(0), None, None, None, byref(token), None, None),
        )
        _check(library, major, minor)
        return string_at(token.value or 0, token.length) if token.value else b""
    finally:
        library.gss_release_buffer(byref(minor), byref(token))
        library.gss_delete_sec_context(byref(minor), byref(context), None)
        library.gss_release_name(byref(minor), byref(name))


def _import_name(library: ctypes.CDLL, text: bytes, name: c_void_p) -> None:
    kept, minor = ctypes.create_string_buffer(text), c_uint32()
    given = _Buffer(len(text), ctypes.cast(kept, c_void_p))
    kind = c_void_p.in_dll(library, "GSS_C_NT_HOSTBASED_SERVICE")
    _check(library, library.gss_import_name(byref(minor), byref(given), kind, byref(name)), minor)


def _check(library: ctypes.CDLL, major: int, minor: c_uint32) -> None:
    if major & _ERRORS:
        said = (_words(library, minor.value, _MECHANISM_CODE), _words(library, major, _GSS_CODE))
        raise NoTicket(next(filter(None, said), f"status {major & 0xFFFFFFFF:#x}"))


def _words(library: ctypes.CDLL, code: int, kind: int) -> str:
    more, minor, said = c_uint32(), c_uint32(), _Buffer()
    library.gss_display_status.argtypes = (
        *(POINTER(c_uint32), c_uint32, c_int, c_void_p),
        *(POINTER(c_uint32), POINTER(_Buffer)),
    )
    library.gss_display_status(
        byref(minor), code & 0xFFFFFFFF, kind, None, byref(more), byref(said)
    )
    text = string_at(said.value, said.length).decode("utf-8", "replace") if said.value else ""
    library.gss_release_buffer(byref(minor), byref(said))
    return text
