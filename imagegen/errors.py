"""The one error that a caller sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of the request, and how to mend it."""

    field: str
    message: str


class RequestError(Exception):
    """The caller must change something. ``code``, ``message`` and ``status`` are those of the answer."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        message: str,
        problems: Sequence[FieldProblem] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = tuple(problems)
        self.retry_after = retry_after
        """Seconds."""
        self.headers = dict(headers or {})

    @classmethod
    def for_fields(cls, problems: Sequence[FieldProblem]) -> RequestError:
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        return cls(status=400, code="invalidPayload", message=message, problems=problems)

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
