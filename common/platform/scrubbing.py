"""Removal of names of patients and places from a text; the last defence.

Nothing that leaves a site is free text by design (`common.messages.wire`); this catches what a
mistake would let through. It knows absolute paths, DICOM UIDs and e-mail addresses by their look.
It does NOT know names, dates of birth or record numbers: those must never be put into a text.

Public: scrub.
"""

from __future__ import annotations

import re

#: Of an address on the web the host may stay; its path may name a study.
_WEB = re.compile(r"(\bhttps?://[^\s/?#'\"]+)([/?#][^\s'\"]*)?")
#: Quoted, a path ends with its quote. Else it may hold spaces and commas, so it and all that
#: follows on its line goes.
_PATH = re.compile(
    r"""
      (?P<quote>['"])(?:file://)?(?:~?/|~\w+/|[A-Za-z]:[\\/]|\\\\).*?(?P=quote)
    | (?:\bfile://|(?<![\w/])~\w*/|(?<![\w])/(?=[^\s/])|(?<![\w])[A-Za-z]:[\\/]|\\\\(?=\w)).*
    """,
    re.VERBOSE,
)
#: DICOM PS3.5, 9.1: numbers joined by dots, the first of them 0, 1 or 2. Shorter ones are
#: versions of software and network addresses.
_UID = re.compile(r"(?<![\d.])[0-2](?:(?:\.\d+){4,}|(?:\.\d+)+\.\d{6,})")
_MAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)*")


def scrub(text: str) -> str:
    """Return the text with [path], [uid] and [address] in place of what looks like one."""
    text = _MAIL.sub("[address]", _UID.sub("[uid]", text))
    parts: list[str] = []
    start = 0
    for web in _WEB.finditer(text):
        parts += [
            _PATH.sub("[path]", text[start : web.start()]),
            web[1],
            "[path]" if web[2] else "",
        ]
        start = web.end()
    return "".join((*parts, _PATH.sub("[path]", text[start:])))
