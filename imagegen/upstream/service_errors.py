"""Errors that an image service states, for a generation or for one image of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final, cast

from imagegen.generation import GenerationError
from imagegen.upstream.masking import Mask, mask_secrets, masked
from imagegen.upstream.reasons import parse_json, reason_of

NO_REASON: Final = "The image service gave no reason."
LONGEST_REASON: Final = 500
"""Characters of a gateway's text, and of any text in ``innererror``."""

_LONGEST_MESSAGE: Final = 2_000
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_FILTER_CODES: Final = frozenset(
    {
        "contentfilter",
        "content_filter",
        "content_policy",
        "content_policy_violation",
        "moderation_blocked",
        "responsibleaipolicyviolation",
    }
)
_FILTER_WORDS: Final = re.compile(
    r"rejected (?:by|as a result of) (?:our|the) safety system|content management policy"
    r"|(?:flagged|blocked|filtered|rejected) by (?:our |the |a )?content filter",
    re.IGNORECASE,
)
_FILTER_RESULTS: Final = ("content_filter_results", "content_filter_result", "prompt_filter_results")


def valid_code(stated: object, mask: Mask = mask_secrets) -> str | None:
    """The code as text, if it is one: the app sends it as a header. LiteLLM writes ``"None"`` for no code."""
    code = mask(str(stated)) if isinstance(stated, str | int) and not isinstance(stated, bool) else ""
    return code if _CODE.fullmatch(code) and code.lower() not in ("none", "null") else None


def read_error(stated: object, *, default_code: str = "upstreamFailure", mask: Mask = mask_secrets) -> GenerationError:
    """The service's error, with defaults for missing parts. All forms of a content filter become ``contentFilter``."""
    fields = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {"message": stated}
    code = (valid_code(fields["code"], mask) if fields.get("code") else None) or default_code
    inner = fields.get("innererror") or fields.get("inner_error")
    inner = cast("dict[str, Any]", inner) if isinstance(inner, dict) and _is_small(cast("object", inner)) else None
    text = fields.get("message")
    text = text if isinstance(text, str) and text.strip() else reason_of(fields)
    if _is_filtered(code, text, inner or {}) or any(_categories(fields)):
        inner = inner or {"code": code}
        code = "contentFilter"
    message = mask(text)[:_LONGEST_MESSAGE] or NO_REASON
    return GenerationError(code=code, message=message, innererror=masked(inner, mask))


def read_refused_image(item: dict[str, Any], *, default_code: str, mask: Mask = mask_secrets) -> GenerationError:
    """Why this item of a result is no image."""
    if item.get("error") is None and (categories := list(dict.fromkeys(_categories(item)))):
        results = {name: item[name] for name in _FILTER_RESULTS if _is_small(item.get(name)) and item.get(name)}
        return GenerationError(
            code="contentFilter",
            message=f"The content filter of the image service removed this image ({', '.join(categories)[:200]}).",
            innererror=masked(results, mask) or None,
        )
    if "error" in item:
        return read_error(item["error"], default_code=default_code, mask=mask)
    return GenerationError(
        code="noImage", message="The image service listed an image without content, a URL or an error."
    )


def read_error_without_images(body: bytes, mask: Mask = mask_secrets) -> GenerationError:
    """Why a 200 holds no image: the error that it states, if it does. Some gateways send all errors with 200."""
    try:
        stated = parse_json(body)
    except ValueError:
        stated = None
    fields = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}
    if fields.get("error") or any(_categories(fields)):
        return read_refused_image({**fields, "error": fields.get("error")}, default_code="noImages", mask=mask)
    reason = mask(reason_of(fields))[:LONGEST_REASON]
    message = "The response of the image service holds no image."
    return GenerationError(code="noImages", message=message, innererror={"message": reason} if reason else None)


def _is_filtered(code: str, text: str, inner: dict[str, Any]) -> bool:
    codes = {code.lower(), str(inner.get("code")).lower()}
    return bool(codes & _FILTER_CODES or _FILTER_WORDS.search(text)) or any(_categories(inner))


def _categories(fields: dict[str, Any]) -> Iterator[str]:
    """The categories, such as ``violence``, in which the content filter found something."""
    for name in _FILTER_RESULTS:
        yield from _filtered(name, fields.get(name))


def _filtered(name: str, result: object, depth: int = 4) -> Iterator[str]:
    if isinstance(result, list) and depth:
        for part in cast("list[object]", result)[:50]:
            yield from _filtered(name, part, depth - 1)
    elif isinstance(result, dict) and depth:
        parts = cast("dict[str, object]", result)
        if parts.get("filtered") is True:
            yield name if _CODE.fullmatch(name) else "unnamed"
        for key, part in list(parts.items())[:50]:
            yield from _filtered(key, part, depth - 1)


def _is_small(value: object, depth: int = 12) -> bool:
    """Whether this JSON from the service is small enough for a record."""
    if isinstance(value, dict):
        items = list(cast("dict[str, object]", value).items())
        return depth > 0 and len(items) <= 50 and all(_is_small(part, depth - 1) for pair in items for part in pair)
    if isinstance(value, list):
        parts = cast("list[object]", value)
        return depth > 0 and len(parts) <= 50 and all(_is_small(part, depth - 1) for part in parts)
    # JSON has no infinity, but 1e999 gives one.
    return len(value) <= 2_000 if isinstance(value, str) else not isinstance(value, float) or isfinite(value)
