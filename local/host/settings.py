"""The settings of the host: host.json and the process environment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class ConfigurationError(Exception):
    """The host cannot start with this app or these settings. The message says where, why and what to do."""


def problems(error: ValidationError) -> str:
    """Each problem that pydantic found, as `place: message`."""
    found = error.errors(include_url=False)
    texts = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in found]
    return "; ".join(f"{place}: {text}" if place else text for place, text in texts)


FIRST_POLL = timedelta(milliseconds=100)
"""The pause after the first poll of a queue that is empty."""


def _time_span(text: object) -> timedelta:
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a time span such as '00:00:30'")
    return timedelta(hours=int(match[1]), minutes=int(match[2]), seconds=float(match[3]))


def _polling(interval: timedelta) -> timedelta:
    if interval < FIRST_POLL:
        raise ValueError("the shortest interval is '00:00:00.100'")
    return interval


class QueueSettings(BaseModel):
    """`extensions.queues` of host.json, with Azure's defaults."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    batch_size: Annotated[int, Field(ge=1, le=32)] = 16
    new_batch_threshold: Annotated[int | None, Field(ge=0)] = None
    """Receive the next batch when no more messages than this are in progress. None: half of `batch_size`."""
    visibility_timeout: Annotated[timedelta, BeforeValidator(_time_span)] = timedelta()
    """How long a failed message stays invisible before the next attempt."""
    max_dequeue_count: Annotated[int, Field(ge=1)] = 5
    max_polling_interval: Annotated[timedelta, AfterValidator(_polling), BeforeValidator(_time_span)] = timedelta(
        minutes=1
    )
    """The longest pause between two polls of an empty queue."""
    message_encoding: Literal["base64"] = "base64"


class _HostJson(BaseModel):
    """What the local host uses of host.json. It ignores the rest."""

    route_prefix: str = Field("api", validation_alias=AliasPath("extensions", "http", "routePrefix"))
    queues: QueueSettings = Field(QueueSettings(), validation_alias=AliasPath("extensions", "queues"))


@dataclass(frozen=True)
class HostSettings:
    host_id: str
    """Names this app's leases and timers in storage: the same for every host of one folder."""
    environ: Mapping[str, str]
    route_prefix: str = "api"
    queues: QueueSettings = field(default_factory=QueueSettings)

    def resolve(self, value: str, *, where: str) -> str:
        """Replace each %SETTING% in a binding's value, which is at `where`."""
        try:
            return re.sub(r"%([^%]+)%", lambda match: self.environ[match[1]], value)
        except KeyError as error:
            raise ConfigurationError(f"{where}: {value!r} needs the setting {error.args[0]}. Set it.") from None

    def is_disabled(self, function: str) -> bool:
        """Whether a setting disables the function. Some shells allow no dots in a name."""
        values = (self.environ.get(f"AzureWebJobs{mark}{function}{mark}Disabled", "") for mark in "._")
        return any(value == "1" or value.strip().lower() == "true" for value in values)


def load(root: Path, environ: Mapping[str, str]) -> HostSettings:
    """Read the settings of the function app in `root`."""
    path = root / "host.json"
    for name in environ:
        if name.startswith("AzureFunctionsJobHost__"):
            raise ConfigurationError(f"the local host does not support the setting {name}. Change {path} instead.")
    try:
        # Editors on Windows write a byte order mark.
        host_json = _HostJson.model_validate_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist. Set --root to the folder of a function app.") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {problems(error)}") from None
    folder = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    host_id = environ.get("AzureFunctionsWebHost__hostid", f"local-{folder}")
    return HostSettings(host_id, environ, host_json.route_prefix.strip("/"), host_json.queues)
