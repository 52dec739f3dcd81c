"""What a model accepts: one declaration that checks requests and fills ``GET /models``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import GenerationRequest

_NOT_IN_EVERY_MODEL: Final = ("quality", "output_format", "output_compression", "background", "style")
"""A model refuses those of these fields that it does not have. ``user`` is missing here: it is ignored instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRule:
    """The sizes of a model that takes any, within limits. All numbers are pixels."""

    shortest: int
    longest: int
    """The limits of each side."""
    step: int = 1
    """Each side is a multiple of this."""
    fewest_pixels: int = 0
    most_pixels: int | None = None
    """The limits of width times height."""
    most_ratio: int | None = None
    """The limit of the long side, divided by the short one."""

    def __str__(self) -> str:
        """The rule for a caller."""
        parts = [f"each side {self.shortest:,} to {self.longest:,} pixels"]
        if self.step > 1:
            parts.append(f"a multiple of {self.step}")
        if self.most_ratio:
            parts.append(f"the long side at most {self.most_ratio} times the short one")
        if self.fewest_pixels and self.most_pixels:
            parts.append(f"{self.fewest_pixels:,} to {self.most_pixels:,} pixels in all")
        elif self.most_pixels:
            parts.append(f"at most {self.most_pixels:,} pixels in all")
        return f"WIDTHxHEIGHT with {', '.join(parts)}"

    def problems(self, width: int, height: int) -> list[str]:
        """The broken limits. None if the model makes this size."""
        short, long = sorted((width, height))
        pixels = width * height
        broken = {
            f"has a side of {short:,} pixels; at least {self.shortest:,} are needed": short < self.shortest,
            f"has a side of {long:,} pixels; at most {self.longest:,} are accepted": long > self.longest,
            f"has a side that is no multiple of {self.step}": bool(width % self.step or height % self.step),
            f"has a long side of more than {self.most_ratio} times the short one": (
                self.most_ratio is not None and long > self.most_ratio * short
            ),
            f"has {pixels:,} pixels; at least {self.fewest_pixels:,} are needed": pixels < self.fewest_pixels,
            f"has {pixels:,} pixels; at most {self.most_pixels or 0:,} are accepted": (
                self.most_pixels is not None and pixels > self.most_pixels
            ),
        }
        return [problem for problem, is_broken in broken.items() if is_broken]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a model accepts, in addition to a prompt."""

    sizes: tuple[str, ...]
    size_rule: SizeRule | None = None
    """Accepted in addition to `sizes`."""
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
            if values is not None and (value := getattr(request, name)) not in (None, *values):
                yield FieldProblem(name, f"{value}; '{model}' accepts {', '.join(values)}. Use one of these.")
        if (problem := self._size_problem(request.size)) is not None:
            message = f"{request.size}{problem} '{model}' accepts {self.size_words}. Use one of these."
            yield FieldProblem("size", message)

    @property
    def size_words(self) -> str:
        """The accepted sizes, for a caller."""
        listed = ", ".join(self.sizes)
        return f"{listed}, or {self.size_rule}" if self.size_rule else listed

    def _size_problem(self, size: str | None) -> str | None:
        """What follows the wrong size in a message; None if the model makes it."""
        if size is None or size in self.sizes:
            return None
        width, height = width_and_height(size)
        if self.size_rule is None or width is None or height is None:
            return ";"
        match self.size_rule.problems(width, height):
            case []:
                return None
            case [problem]:
                return f" {problem}."
            case _:
                return ";"


def width_and_height(size: str | None) -> tuple[int, int] | tuple[None, None]:
    """Pixels of a size such as ``1024x1536``; None if the model chooses the size."""
    if size is None or size == "auto":
        return None, None
    width, _, height = size.partition("x")
    return int(width), int(height)
