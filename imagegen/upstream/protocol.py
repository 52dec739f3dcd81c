"""The two kinds of image API, polled and direct, and the outcomes of their calls.

An upstream does not raise when the service or the network fails. Each outcome is a value, and the state machine decides
what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from imagegen.generation import REFUSALS_OF_THE_APP, Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.limits import Limits


@dataclass(frozen=True, slots=True)
class Accepted:
    """The image service accepted the request and works on it."""

    operation_location: str
    retry_after: float | None
    """Seconds; None if the service gave no time."""


@dataclass(frozen=True, slots=True)
class Working:
    """The operation has not finished."""

    retry_after: float | None
    """Seconds; None if the service gave no time."""


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image to download. The URL is a credential."""

    url: str
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ImageRefused:
    """An image that the service did not make."""

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
    """The generation ended without images: it failed (with an error) or was canceled."""

    status: Status
    error: GenerationError | None = None


@dataclass(frozen=True, slots=True)
class _WithoutEffect:
    """The call did nothing, and may be repeated."""

    reason: str
    retry_after: float | None = None
    """Seconds; None if the service gave no time."""
    code: str | None = None
    """The service's code, such as ``insufficient_quota``: 1 to 100 of ``A-Za-z0-9_.-``; None if it stated none."""


@dataclass(frozen=True, slots=True)
class Unavailable(_WithoutEffect):
    """The service gave no usable answer (network, 5xx). Nothing is decided: try again."""

    @property
    def cause(self) -> str:
        """What the record, the log and the caller read, after "The last try failed:"."""
        cause = re.sub(r"^status (?=\d)", "the image service answered ", self.reason)
        return f"{cause} ({self.code})" if self.code else cause


@dataclass(frozen=True, slots=True)
class Missing:
    """The service answered the poll with 404: the operation is not visible yet, not visible for a moment, or gone."""

    retry_after: float | None = None
    """Seconds; None if the service gave no time."""


@dataclass(frozen=True, slots=True)
class Throttled(_WithoutEffect):
    """A quota of the deployment is used up: all instances pause their calls of it."""

    @property
    def cause(self) -> str:
        """What the record, the log and the caller read, after "Throttled by the image service:"."""
        return self.code or self.reason


@dataclass(frozen=True, slots=True)
class Throttle:
    """A pause of all calls of a deployment, as all instances see it."""

    until: datetime
    reason: str

    @property
    def is_refusal(self) -> bool:
        """Whether the deployment refused the app: no quota is used up."""
        return self.reason in REFUSALS_OF_THE_APP


@dataclass(frozen=True, slots=True)
class Lost:
    """The request may have reached the service, but no answer came. The call may have been billed."""

    reason: str
    sentence: str | None = field(default=None, compare=False)
    """The start of the reason that a gateway gave, for a reader: one printable line, masked; None without one."""

    @property
    def cause(self) -> str:
        """What the record and the caller read, after "The last problem:"."""
        return f"{self.reason}: {self.sentence}" if self.sentence else self.reason


@dataclass(frozen=True, slots=True)
class CheckProblem:
    """What a health check found. The message holds no address and no credential."""

    message: str
    certain: bool = True
    """False: the service may still make images; the answer does not tell."""


class Upstream(Protocol):
    """One deployment of an image API."""

    @property
    def limits(self) -> Limits: ...

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with the name of the model and the defaults of its API.

        Raises
        ------
        RequestError
            With each field that the model does not accept.
        """
        ...

    def check(self) -> CheckProblem | None:
        """A problem of the service, or of the app's credential for it; None without a problem. The check is free."""
        ...


@runtime_checkable
class Polled(Upstream, Protocol):
    """An API that answers 202 and is polled."""

    def submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        """Start the operation. Idempotent: the ``Operation-Id`` is the generation's id."""
        ...

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Missing | Unavailable:
        """Get the state of the operation."""
        ...


@runtime_checkable
class Direct(Upstream, Protocol):
    """An API that answers with the images. Not idempotent."""

    def generate(self, generation: Generation) -> Answered | Ended | Throttled | Unavailable | Lost:
        """Make the call, which takes minutes. After `Unavailable` and `Throttled`, nothing was billed."""
        ...
