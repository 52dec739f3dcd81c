"""Rules that the fields of a request must keep, said once for all APIs."""

from __future__ import annotations

from collections.abc import Iterable

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import GenerationRequest


class Checks:
    """Collects what is wrong with a request for one model."""

    def __init__(self, request: GenerationRequest, name: str) -> None:
        self._request = request
        self._name = name
        self._problems: list[FieldProblem] = []

    def unknown(self, *fields: str) -> Checks:
        """The model does not have these."""
        for field in fields:
            if getattr(self._request, field) is not None:
                self.problem(field, f"the model '{self._name}' does not know this field; leave it out")
        return self

    def one_of(self, field: str, allowed: Iterable[str]) -> Checks:
        """The field, if it is there, has one of these values."""
        if (value := getattr(self._request, field)) is not None and value not in (known := tuple(allowed)):
            self.problem(field, f"must be one of {', '.join(known)} for '{self._name}'")
        return self

    def longest_prompt(self, limit: int) -> Checks:
        if (length := len(self._request.prompt)) > limit:
            self.problem("prompt", f"has {length} characters; '{self._name}' takes {limit}")
        return self

    def most_images(self, limit: int) -> Checks:
        if self._request.n > limit:
            self.problem("n", f"is {self._request.n}; '{self._name}' makes {f'1 to {limit}' if limit > 1 else 'one'}")
        return self

    def problem(self, field: str, message: str) -> Checks:
        self._problems.append(FieldProblem(field, message))
        return self

    def raise_if_any(self) -> None:
        if self._problems:
            raise RequestError.for_fields(self._problems)


def width_and_height(size: str) -> tuple[int, int]:
    """Pixels, of a size such as ``1024x1536``."""
    width, _, height = size.partition("x")
    return int(width), int(height)
