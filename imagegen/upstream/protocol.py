"""One module for each API that an image can come from, behind one small protocol.

An upstream never raises for what the service or the network does: each outcome is a value, and the state machine
decides what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from imagegen.generation import Generation, GenerationError, GenerationRequest, Status


@dataclass(frozen=True, slots=True)
class Accepted:
    """Upstream took the request and works on it."""

    operation_location: str
    retry_after: float | None
    """Seconds, where upstream said."""


@dataclass(frozen=True, slots=True)
class Working:
    """Not finished yet."""

    retry_after: float | None
    """Seconds, where upstream said."""


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image that waits to be fetched. The URL is itself a credential."""

    url: str
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ImageRefused:
    """An image that upstream did not make."""

    error: GenerationError


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An image that came in the answer."""

    content: bytes = field(repr=False)
    revised_prompt: str | None = None


type ImageSource = ImageUrl | ImageBytes | ImageRefused


@dataclass(frozen=True, slots=True)
class Produced:
    """The operation succeeded: a poll returned its images."""

    images: tuple[ImageSource, ...]
    """In the order of the operation's result. A repeated poll returns them again."""
    expires: datetime | None = None
    """When the image service deletes them."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The images came in the answer. They can be iterated once, so that one image at a time is in memory."""

    images: Iterable[ImageSource]
    usage: dict[str, int] | None = None
    """Tokens, if the image service counts them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Upstream is finished and there are no images: failed (with an error), or canceled."""

    status: Status
    error: GenerationError | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No answer to rely on (network, 429, 5xx): nothing is decided, try again."""

    reason: str
    retry_after: float | None = None
    """Seconds, where upstream said."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """We are over a quota: nobody should call this deployment for a while."""

    reason: str
    retry_after: float | None = None
    """Seconds, where upstream said."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The request may have reached the service, and no answer came: whether it was billed, nobody knows."""

    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model takes, for those who offer a choice."""

    sizes: tuple[str, ...]
    """Empty: any WIDTHxHEIGHT, or ``auto``."""
    most_images: int
    longest_prompt: int
    fields: tuple[str, ...]
    """Beside prompt, n, size and model."""
    any_size_to: int | None = None
    """Pixels: beside `sizes`, multiples of 16 up to this edge."""


class Upstream(Protocol):
    """One deployment, by whatever API."""

    @property
    def limits(self) -> Limits: ...

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with this API's defaults filled in.

        Raises
        ------
        RequestError
            Naming each field that this API cannot take.
        """
        ...

    def check(self) -> str | None:
        """What is wrong with the service, or with our credential for it. Spends nothing. None when all is well."""
        ...


@runtime_checkable
class Polled(Upstream, Protocol):
    """An API that answers 202 and is polled."""

    def submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        """Start the operation. Idempotent: the generation's id goes along as ``Operation-Id``."""
        ...

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Unavailable:
        """Ask how the operation is doing."""
        ...


@runtime_checkable
class Direct(Upstream, Protocol):
    """An API whose answer has the images in it. Not idempotent."""

    def generate(self, generation: Generation) -> Answered | Ended | Throttled | Unavailable | Lost:
        """Make the call, which takes minutes. `Unavailable`: it surely did not reach the service, or did nothing."""
        ...
