"""Answers that mean the same at both kinds of API: a used-up quota, and a refused request."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from imagegen.generation import GenerationError, Status
from imagegen.upstream.not_found import NotFoundCauses
from imagegen.upstream.protocol import Ended, Throttled
from imagegen.upstream.response import UpstreamResponse, inner_error
from imagegen.upstream.waits import POLICY_SENTENCE

_BLOCKED_SECONDS: Final = 300.0
"""Pause after the service has blocked the whole resource temporarily."""

_QUOTA_CODES: Final = frozenset(
    {
        "insufficientquota",  # OpenAI with 429, some gateways with 403
        "billinghardlimitreached",  # OpenAI with 400
        "billingnotactive",
        "quotaexceeded",
        "quotalimitreached",
        "ratelimitexceeded",
        "ratelimitreached",
        "toomanyrequests",
    }
)
"""In lower case, without underscores and hyphens."""
_REFUSAL_CODES: Final = re.compile(r"permission|policy|filter|auth|denied|moderation", re.IGNORECASE)
"""Codes of a refusal, whatever time to wait the answer has."""
_BLOCKED: Final = re.compile(r"(?:this|your|the) resource (?:is|has been) temporarily blocked", re.IGNORECASE)
"""The start of the service's own sentence. Elsewhere, a text may quote the prompt."""


def throttle_of(response: UpstreamResponse, now: datetime) -> Throttled | None:
    """The throttle that this answer states; None if it states none. A throttled request was not billed."""
    status = response.status
    if status not in (400, 402, 403, 429):
        return None
    error, code, retry_after = response.error, response.code, response.retry_after(now)
    if status == 429:
        return Throttled(_policy_sentence(response) or "status 429", retry_after, code)
    if error.code == "contentFilter":
        return None
    if status == 403 and _BLOCKED.match(error.message):
        # The service blocks the whole resource, and every call would extend the block.
        return Throttled("temporarily blocked", max(_BLOCKED_SECONDS, retry_after or 0), code)
    states_quota = re.sub(r"[_-]", "", code or "").lower() in _QUOTA_CODES
    # A missing role or a network rule has no such header: only a quota does.
    states_time = response.retry_after_header(now) is not None or POLICY_SENTENCE.match(error.message)
    by_gateway = status == 403 and states_time and not _REFUSAL_CODES.search(code or "")
    # A wait of 0 would repeat the request at once: then the pause grows with each throttle.
    if not (states_quota or by_gateway):
        return None
    return Throttled(_policy_sentence(response) or f"status {status}", retry_after or None, code)


def _policy_sentence(response: UpstreamResponse) -> str | None:
    """The reason for all callers and for the log: a known sentence only, because any other may quote a prompt."""
    found = POLICY_SENTENCE.match(response.error.message)
    return found[0].removesuffix(".") if found else None


def refusal(response: UpstreamResponse, not_found: NotFoundCauses) -> GenerationError:
    """The error of an answer that ends the generation."""
    status, error = response.status, response.error
    if error.code == "contentFilter" and status not in (401, 404):
        return error
    if configuration_error := response.configuration_error(not_found):
        return configuration_error
    if status in (400, 422):
        return error.model_copy(update={"code": "invalidPayload", "innererror": inner_error(error)})
    return error if response.code else response.final_error()


def unsendable(error: Exception) -> Ended:
    """The end of a generation whose request HTTP cannot express: a repetition would fail in the same way."""
    return Ended(Status.FAILED, GenerationError(code="configurationInvalid", message=str(error)))
