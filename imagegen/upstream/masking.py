"""Secrets in the texts of an image service: some gateways quote the headers or the URL of a request in their errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, cast

type Mask = Callable[[str], str]
"""Replaces the secrets in a text by ``***``."""

_LONGEST: Final = 8_000
"""Characters that are read. The app keeps 2,000 of an error at most."""

_NAMES: Final = (
    r"(?:ocp-apim-)?subscription[-_ ]?key|x-functions-key|api[-_ ]?key|account[-_ ]?key|access[-_ ]?key"
    r"|sharedaccess(?:key|signature)|access[-_ ]?token|client[-_ ]?secret|password|secret|token|signature|sig|key"
)
_VALUE: Final = r"[^\s\"',;<>]"
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), replacement)
    for pattern, replacement in (
        # The user and password of a URL.
        (r"(://)[^\s/?#@\"'<>]+@", r"\1***@"),
        # A parameter of a URL: any value is secret.
        (r"([?&](?:code|sig|key)=)[^\s&\"'<>]+", r"\1***"),
        (rf"\b((?:{_NAMES})[\"']?\s?=\s?[\"']?)[^\s&\"',;<>]+", r"\1***"),
        (r"\b(code=)[^\s&\"',;<>]{16,}", r"\1***"),
        # A header. Words such as "api-key: missing" stay.
        (r"\b((?:bearer|basic)\s{1,3})(?=\S{0,200}[\d.~+/_=-]\w|\S{20})[\w.~+/=-]{8,}", r"\1***"),
        (
            rf"\b((?:{_NAMES})(?: provided)?[\"']?\s?:\s?[\"']?)(?={_VALUE}{{0,200}}\d|{_VALUE}{{16}}){_VALUE}{{6,}}",
            r"\1***",
        ),
        # A JSON web token, a key of OpenAI, base64 with its padding, and any other long text of letters and digits
        # without separators (a UUID has them).
        (r"\beyJ[\w-]*(?:\.[\w-]+){1,2}|\beyJ[\w-]{8,}", "***"),
        (r"\bsk-[\w*-]{6,}", "***"),
        (r"(?<![\w+/-])[\w+/-]{20,}={1,2}(?![\w=])", "***"),
        (r"\b(?=[a-z]{0,200}[0-9])(?=[0-9]{0,200}[a-z])[a-z0-9]{32,}\b", "***"),
    )
)


def mask_secrets(text: str) -> str:
    """The text without what looks like a secret, shortened to what the app can use."""
    text = text[:_LONGEST]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def masking(key: str | None) -> Mask:
    """A mask that knows the key of the deployment, too, whatever that looks like."""
    return mask_secrets if not key else lambda text: mask_secrets(text.replace(key, "***"))


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
