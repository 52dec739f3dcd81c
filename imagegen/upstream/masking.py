"""Secrets in the texts of an image service: some gateways quote the headers or the URL of a request in their errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Final, cast
from urllib.parse import quote

type Mask = Callable[[str], str]
"""Replaces the secrets in a text by ``***``."""

_LONGEST: Final = 8_000
"""Characters that are read. The app keeps 2,000 of an error at most."""

_NAME: Final = r"[\w-]{0,40}(?:key|token|secret|password|passwd|pwd|signature|sig)(?: provided)?"
"""Of a header, a parameter or a field: ``Ocp-Apim-Subscription-Key``, ``refresh_token``, ``secretAccessKey``."""
_QUOTE: Final = r"(?:\\{0,3}[\"'])?"
_EQUALS: Final = rf"{_QUOTE}\s?(?:=|%(?:25)?3D)\s?{_QUOTE}"
_COLON: Final = rf"{_QUOTE}\s?(?::|%(?:25)?3A)\s?\[?{_QUOTE}"
_VALUE: Final = r"[^\s\"',;<>]"
# Words such as "api-key: missing" stay: a secret has a digit, a capital after a small letter, or 16 characters.
_SECRET: Final = rf"(?={_VALUE}{{0,200}}(?:\d|(?-i:[a-z][A-Z]))|{_VALUE}{{16}}){_VALUE}{{6,}}"
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), replacement)
    for pattern, replacement in (
        # The user and password of a URL.
        (r"(://)[^\s/?#@\"'<>]+@", r"\1***@"),
        # A parameter of a URL, and any other assignment: every value is secret.
        (r"([?&](?:code|sig|key)=)[^\s&\"'<>]+", r"\1***"),
        (rf"\b({_NAME}{_EQUALS})[^\s&\"',;<>]+", r"\1***"),
        (r"\b(code=)[^\s&\"',;<>]{16,}", r"\1***"),
        # A header.
        (rf"\b(authorization(?:{_EQUALS}|{_COLON})(?:[\w-]{{1,30}}\s{{1,3}})?){_SECRET}", r"\1***"),
        (
            r"\b((?:bearer|basic)\s{1,3})(?=\S{0,200}(?:[\d.~+/_=-]\w|(?-i:[a-z][A-Z]))|\S{20})[\w.~+/=-]{8,}",
            r"\1***",
        ),
        (rf"\b({_NAME}{_COLON}){_SECRET}", r"\1***"),
        # A JSON web token, a key of OpenAI, base64 with its padding, and any other long text of letters and digits
        # without separators (a UUID has them).
        (r"\beyJ[\w-]*(?:\.[\w-]+){1,2}|\beyJ[\w-]{8,}", "***"),
        (r"\bsk-[\w*-]{6,}", "***"),
        (r"(?<![\w+/-])[\w+/-]{20,}={1,2}(?![\w=])", "***"),
        (r"(?<![a-z0-9])(?=[a-z]{0,200}[0-9])(?=[0-9]{0,200}[a-z])[a-z0-9]{32,}", "***"),
    )
)


def mask_secrets(text: str) -> str:
    """The text without what looks like a secret, shortened to what the app can use, and valid in UTF-8."""
    text = text[:_LONGEST].encode("utf-8", "replace").decode()  # a lone surrogate: no record could hold it
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def masking(key: str | None) -> Mask:
    """A mask that knows the key of the deployment, too, whatever that looks like and however it is escaped."""
    if not key:
        return mask_secrets
    of_deployment = re.compile("".join(_escaped_forms(character) for character in key), re.IGNORECASE)
    return lambda text: mask_secrets(of_deployment.sub("***", text))


def _escaped_forms(character: str) -> str:
    """A pattern for the character itself, and as it is escaped in a URL, in HTML and in JSON."""
    if character.isalnum():
        return re.escape(character)
    number = ord(character)
    # A setting that is not UTF-8 has lone surrogates, which `quote` could not encode.
    escaped = (
        quote(character, safe="", errors="surrogatepass"),
        escape(character),
        f"&#{number};",
        f"&#x{number:x};",
        f"\\u{number:04x}",
    )
    return f"(?:{'|'.join(map(re.escape, (*escaped, f'\\{character}', character)))})"


def masked[T](value: T, mask: Mask) -> T:
    """JSON with masked texts and names."""
    if isinstance(value, str):
        return cast("T", mask(value))
    if isinstance(value, list):
        return cast("T", [masked(part, mask) for part in cast("list[object]", value)])
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return cast("T", {mask(name): masked(part, mask) for name, part in pairs})
    return value
