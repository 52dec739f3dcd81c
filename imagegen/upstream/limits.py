"""What a model accepts: one declaration that checks requests and fills ``GET /models``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import GenerationRequest

_NOT_IN_EVERY_MODEL: Final = ("quality", "output_format", "output_compression", "background", "style")
"""A model refuses those of these fields that it does not have. ``user`` is missing here: it is ignored instead."""

_SIZE_STEP: Final = 16
"""Pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model accepts, in addition to a prompt."""

    sizes: tuple[str, ...]
    """Empty: any WIDTHxHEIGHT, and ``auto``."""
    any_size_to: int | None = None
    """Longest edge in pixels: in addition to `sizes`, any multiples of 16 up to this."""
    most_images: int
    longest_prompt: int
    """Characters."""
    accepted: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict[str, tuple[str, ...] | None])
    """The optional fields of the model and their accepted values; None if the model accepts any value."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the optional fields: those other than prompt, n, size and model."""
        return tuple(self.accepted)

    def check(self, request: GenerationRequest, model: str, *, more: Iterable[FieldProblem] = ()) -> None:
        """Refuse a request that the model does not accept.

        Parameters
        ----------
        model
            The name that the messages show.
        more
            Problems that a rule of this model found, such as fields that exclude each other.

        Raises
        ------
        RequestError
            With every problem.
        """
        if problems := [*self._problems(request, model), *more]:
            raise RequestError.for_fields(problems)

    def _problems(self, request: GenerationRequest, model: str) -> Iterator[FieldProblem]:
        for name in _NOT_IN_EVERY_MODEL:
            if name not in self.accepted and getattr(request, name) is not None:
                yield FieldProblem(name, f"'{model}' does not have this field. Leave it out.")
        if (length := len(request.prompt)) > self.longest_prompt:
            message = f"{length:,} characters; '{model}' accepts {self.longest_prompt:,}. Shorten it."
            yield FieldProblem("prompt", message)
        if request.n > self.most_images:
            yield FieldProblem("n", f"{request.n} images; '{model}' accepts at most {self.most_images}. Lower it.")
        for name, values in self.accepted.items():
            if values is not None and getattr(request, name) not in (None, *values):
                yield FieldProblem(name, f"'{model}' accepts {', '.join(values)}. Use one of these.")
        if not self._has_size(request.size):
            more = f", and multiples of {_SIZE_STEP} up to {self.any_size_to}" if self.any_size_to else ""
            yield FieldProblem("size", f"'{model}' accepts {', '.join(self.sizes)}{more}. Use one of these.")

    def _has_size(self, size: str | None) -> bool:
        if size is None or not self.sizes or size in self.sizes:
            return True
        limit = self.any_size_to
        return limit is not None and all(
            edge is not None and edge <= limit and edge % _SIZE_STEP == 0 for edge in width_and_height(size)
        )


def width_and_height(size: str | None) -> tuple[int, int] | tuple[None, None]:
    """Pixels of a size such as ``1024x1536``; None if the model chooses the size."""
    if size is None or size == "auto":
        return None, None
    width, _, height = size.partition("x")
    return int(width), int(height)
