"""Encodings of a text that the ``charset`` of a Content-Type may name."""

from __future__ import annotations

import re
from typing import Final

_CODECS: Final = {
    "utf8": "utf-8",
    "usascii": "utf-8",
    "ascii": "utf-8",
    "utf16": "utf-16",
    "utf16le": "utf-16-le",
    "utf16be": "utf-16-be",
    "utf32": "utf-32",
    "utf32le": "utf-32-le",
    "utf32be": "utf-32-be",
    "iso88591": "latin-1",
    "latin1": "latin-1",
    "windows1252": "windows-1252",
    "cp1252": "windows-1252",
}
"""By ``charset`` in lower case and without punctuation."""


def codec_of(charset: str) -> str | None:
    """The codec of Python; None for any other charset.

    A list, because Python knows codecs such as ``zip``, ``punycode`` and ``unicode_escape`` too. They take long, or
    give a text that no file can hold.
    """
    return _CODECS.get(re.sub(r"[^a-z0-9]", "", charset.lower()))
