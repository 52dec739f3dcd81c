"""One module for each API that an image can come from, behind one small protocol.

An upstream never raises for what the service or the network does: each outcome is a value, and the state machine
decides what follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

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


type ImageSource = ImageUrl | ImageRefused


@dataclass(frozen=True, slots=True)
class Produced:
    """Upstream is finished; these are the images, in order."""

    images: tuple[ImageSource, ...]
    expires: datetime | None = None
    """When upstream throws them away."""


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


class Upstream(Protocol):
    """An image API that answers 202 and is polled."""

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

    def submit(self, generation: Generation) -> Accepted | Ended | Unavailable:
        """Start the operation. Idempotent: the generation's id goes along as ``Operation-Id``."""
        ...

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Unavailable:
        """Ask how the operation is doing."""
        ...
