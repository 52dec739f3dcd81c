"""Errors that the app raises. ``web`` turns those that concern a caller into HTTP answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        return RequestError("invalidPayload", message, problems=problems)

    def to_json(self) -> dict[str, Any]:
        """``{"error": …}`` after the Microsoft REST guidelines."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.problems:
            error["target"] = self.problems[0].field
        if len(self.problems) > 1:
            error["details"] = [
                {"code": self.code, "message": problem.message, "target": problem.field} for problem in self.problems
            ]
        return {"error": error}


class KeyReusedError(RequestError):
    """The idempotency key was used before, with another request."""

    def __init__(self, header: str) -> None:
        super().__init__("idempotencyKeyReused", f"{header}: this value was used with another request. Use a new one.")
        self.header = header
        """Lower-case name of the header that carried the key."""


class TooManyActiveError(RequestError):
    """``MAX_ACTIVE_GENERATIONS`` are unfinished."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "tooManyRequests",
            f"{limit} generations are active, the limit of this app (MAX_ACTIVE_GENERATIONS). Try again later.",
        )


class ImageUnusableError(Exception):
    """What was fetched is not an image that we can store. Holds no URL: an image's URL is a credential."""

    def __init__(self, code: str, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again
        """Whether fetching once more may help."""


class StorageUnavailableError(Exception):
    """Storage did not answer, or refused us. Nothing is decided."""


class ConflictError(Exception):
    """Somebody else wrote the record since we read it: their move counts, ours does not."""
