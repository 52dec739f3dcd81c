"""Errors that the app raises. ``web`` turns those that concern a caller into HTTP answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of the request, and how to correct it."""

    field: str
    message: str


class RequestError(Exception):
    """The request is wrong: the caller must change it. Nothing was written or billed.

    The answer carries ``code``, ``message`` and ``problems``; ``web`` chooses the HTTP status by the error's type.
    """

    def __init__(self, code: str, message: str, *, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = tuple(problems)

    @classmethod
    def for_fields(cls, problems: Sequence[FieldProblem]) -> RequestError:
        message = " ".join(f"{problem.field}: {problem.message.removesuffix('.')}." for problem in problems)
        return RequestError("invalidPayload", message, problems=problems)


class KeyReusedError(RequestError):
    """The idempotency key was used before, with another request."""

    def __init__(self, header: str) -> None:
        super().__init__(
            "idempotencyKeyReused",
            f"{header.title()}: this value was used before, with another request. Use a new value.",
        )
        self.header = header
        """Lower-case name of the header that carried the key."""


class TooManyActiveError(RequestError):
    """``MAX_ACTIVE_GENERATIONS`` generations are active."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "tooManyRequests",
            f"{limit} generations are active, the limit of this app (MAX_ACTIVE_GENERATIONS). Try again later.",
        )


class QuotaUsedUpError(RequestError):
    """The generation could not begin before its timeout: the quota of its model is used up.

    Parameters
    ----------
    wait
        Seconds until it could begin.
    seconds
        Time after which a new one could begin in time.
    """

    def __init__(self, model: str, waiting: int, wait: float, seconds: float) -> None:
        super().__init__(
            "tooManyRequests",
            f"The quota of '{model}' is used up, and {waiting} generations wait for it: this one would begin in about "
            f"{math.ceil(wait)} seconds, too late for its timeout (timeoutSeconds). Nothing was started. Try again "
            "later, or raise the timeout.",
        )
        self.seconds = seconds


class ImageUnusableError(Exception):
    """The fetched content is not an image that the app can store. The message has no URL: image URLs are secrets."""

    def __init__(self, code: str, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again
        """Whether another fetch may succeed."""


class StorageUnavailableError(Exception):
    """Storage did not answer, or it refused access. The state of the generation is not known."""


class ConflictError(Exception):
    """Another writer changed the record after it was read. That write counts; this one was not made."""
