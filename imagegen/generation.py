"""Data types: a request, the generation that it starts, its images; and their JSON."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MOST_IMAGES = 10
"""Limit of images in one generation."""

_LAST_MILLISECOND = (1 << 48) - 1
"""The largest timestamp that a UUIDv7 can hold."""


def format_time(moment: datetime) -> str:
    """ISO 8601, UTC, milliseconds, ``Z``. The width is fixed, so the strings sort as the times do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime | None:
    """The time in a text of storage, aware. None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]


class Status(StrEnum):
    """The status words of the Azure OpenAI image API. The last three are terminal."""

    NOT_RUNNING = "notRunning"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)


class JsonModel(BaseModel):
    """Base of all JSON objects: camelCase names. Unknown fields are ignored, because records outlive versions."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        hide_input_in_errors=True,  # a record holds a prompt and a token, and errors are logged
    )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object. Fields that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _whole(value: object) -> object:
    """JSON has one kind of number: 2.0 is 2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class GenerationError(JsonModel):
    """Why a generation, or one image of it, failed. Source: Microsoft REST guidelines, 7.10.2."""

    code: str
    message: str
    target: str | None = None
    innererror: dict[str, Any] | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether the service refused the caller's input. The same request would fail again."""
        return self.code in _REFUSALS

    @property
    def is_of_deployment(self) -> bool:
        """Whether the deployment refused the app. Another one may accept the same request."""
        return self.code in REFUSALS_OF_THE_APP


_REFUSALS = frozenset({"contentFilter", "invalidPayload"})
REFUSALS_OF_THE_APP = frozenset({"upstreamUnauthorized", "upstreamForbidden", "upstreamNotFound"})


class StoredImage(JsonModel):
    """An image in the app's own container."""

    container: str
    blob: str
    content_type: str
    content_length: int
    """Bytes."""
    sha256: str
    """64 lower-case hexadecimal digits."""
    revised_prompt: str | None = None


class FailedImage(JsonModel):
    """The place of an image that the service refused, or that could not be copied."""

    error: GenerationError


_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
"""Categories of Unicode: white space, control and format characters."""


def _not_blank(text: str) -> str:
    if all(unicodedata.category(one) in _INVISIBLE for one in text):
        raise PydanticCustomError("blank", "only white space")
    if "\0" in text:
        raise PydanticCustomError("nul", "a NUL")
    return text


NotBlank = Annotated[str, AfterValidator(_not_blank)]


def _allow_null(schema: dict[str, Any]) -> None:
    for name, found in schema["properties"].items():
        if name not in schema["required"] and "anyOf" not in found:
            value = {key: found.pop(key) for key in found.keys() - {"default", "title", "description"}}
            found["anyOf"] = [value, {"type": "null"}]


class RequestBody(JsonModel):
    """Base of the bodies that callers send.

    An unknown field is an error: a typo must not be billed. Null in an optional field means that it is left out.
    """

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=False, json_schema_extra=_allow_null)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: dict[str, Any]) -> dict[str, Any]:
        optional = {found.alias or name for name, found in cls.model_fields.items() if not found.is_required()}
        return {name: value for name, value in body.items() if value is not None or name not in optional}


class GenerationRequest(JsonModel):
    """What to generate. Source: ``POST /generations`` in docs/api.md."""

    prompt: NotBlank = Field(min_length=1, max_length=32_000)
    n: Whole = Field(default=1, ge=1, le=10)
    size: str | None = Field(
        default=None,
        pattern=r"^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})$",
        description="WIDTHxHEIGHT, such as 1024x1024",
    )
    quality: str | None = Field(default=None, min_length=1, max_length=64)
    output_format: str | None = Field(default=None, alias="output_format", min_length=1, max_length=64)
    output_compression: Annotated[int, Field(ge=0, le=100), BeforeValidator(_whole)] | None = Field(
        default=None, alias="output_compression"
    )
    background: str | None = Field(default=None, min_length=1, max_length=64)
    style: str | None = Field(default=None, min_length=1, max_length=64)
    model: str | None = Field(default=None, min_length=1, max_length=128)
    user: str | None = Field(default=None, min_length=1, max_length=256)


_MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=16)]


class StartRequest(GenerationRequest, RequestBody):
    """The body of ``POST /generations``: what to generate, and how to treat the generation."""

    metadata: Metadata = Field(default_factory=dict)
    timeout_seconds: Annotated[int, Field(ge=30, le=86_400), BeforeValidator(_whole)] | None = None

    @property
    def request(self) -> GenerationRequest:
        """The part that says what to generate. Its fields are valid already."""
        given = self.model_fields_set & GenerationRequest.model_fields.keys()
        return GenerationRequest.model_construct(**{name: getattr(self, name) for name in given})


class Generation(JsonModel):
    """The record of one generation: the only state of the app."""

    id: str
    """A UUIDv7: ordered by time, and the ``Operation-Id`` upstream."""
    token: str
    """The capability in every URL of this generation. 128 random bits."""
    status: Status = Status.NOT_RUNNING
    created: Time
    last_action: Time
    deadline: Time
    """At this time an unfinished generation fails with ``deadlineExceeded``."""
    due: Time
    """No worker needs to touch the record before this time. The only lock of the app."""
    request: GenerationRequest
    metadata: Metadata = Field(default_factory=dict)
    traceparent: str | None = None
    """W3C trace context of the start: later work on the generation belongs to the same trace."""
    key: str | None = None
    """Name of its idempotency key under ``keys/``, if the caller sent one."""

    operation_location: str | None = None
    """The URL to poll, byte for byte from the service. None until the service accepted the operation."""
    deployment: str | None = None
    """The member of a pool that takes its call. None: the model has one deployment."""
    refused_by: tuple[str, ...] = ()
    """Members of the pool that refused the app, with 401, 403 or 404."""
    submitted: Time | None = None
    queued: bool = False
    """Whether a queue message is on its way. A worker may act on it before `due`; `due` is for a lost message."""
    calling: bool = False
    """Whether a worker has claimed the record for a call, and has not written its result."""
    claim: str | None = None
    """Random name of the worker that wrote the claim. Two workers that claim at once write different records."""
    lost_calls: int = 0
    """Calls whose response was lost. Each may have been billed."""
    usage: dict[str, int] | None = None
    """Tokens, where the service counts them."""
    faults: int = 0
    """Failures of the service in a row. The back-off grows with them."""
    fault: str | None = None
    """The last of them, in words for the caller."""
    missing_polls: int = 0
    """Polls that were answered with 404, since the last one that found the operation."""
    missing_since: Time | None = None
    """Time of the first of them."""
    copy_attempts: int = 0
    images: tuple[StoredImage | FailedImage | None, ...] = ()
    """The result of each image. None: not copied yet."""
    error: GenerationError | None = None

    def changed(self, **changes: Any) -> Generation:
        """A copy with these fields replaced."""
        return self.model_copy(update=changes)

    @property
    def waits(self) -> bool:
        """Whether its submit or call has not begun, or was refused."""
        return not (self.status.is_terminal or self.calling or self.operation_location)

    @property
    def is_claimed(self) -> bool:
        """Whether a worker may be storing its images at this moment."""
        return self.copy_attempts > 0 or self.calling

    @property
    def done_key(self) -> str:
        return done_key(self.id)


class KeyClaim(JsonModel):
    """What an idempotency key names."""

    id: str
    """The generation of every request with this key."""
    digest: str
    """SHA-256 of the first request with this key."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A record as it was read or written."""

    generation: Generation
    etag: str


def done_key(generation_id: str) -> str:
    """Name of a finished record under ``done/``. It follows from the id, and sorts newest first."""
    milliseconds = UUID(generation_id).int >> 80
    return f"{_LAST_MILLISECOND - milliseconds:012x}-{generation_id}"


def started_at(generation_id: str) -> datetime:
    """The time in this id."""
    return datetime.fromtimestamp((UUID(generation_id).int >> 80) / 1_000, UTC)


def is_generation_id(text: str) -> bool:
    """Whether the text is a UUIDv7 in canonical spelling, as the app makes them."""
    try:
        parsed = UUID(text)
    except ValueError:
        return False
    return parsed.version == 7 and str(parsed) == text
