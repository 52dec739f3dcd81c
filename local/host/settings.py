"""The settings of the host: host.json and the process environment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class ConfigurationError(Exception):
    """The host cannot start with this app or these settings. The message says where, why and what to do."""


def problems(error: ValidationError) -> str:
    """Each problem that pydantic found, as `place: message`."""
    found = error.errors(include_url=False)
    texts = [(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in found]
    return "; ".join(f"{place}: {text}" if place else text for place, text in texts)


def _time_span(text: object) -> timedelta:
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d)", str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a time span such as '00:00:30'")
    hours, minutes, seconds = map(int, match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


class QueueSettings(BaseModel):
    """`extensions.queues` of host.json, with Azure's defaults."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    batch_size: Annotated[int, Field(ge=1, le=32)] = 16
    new_batch_threshold: Annotated[int | None, Field(ge=0)] = None
    """Receive the next batch when no more messages than this are in progress. None: half of `batch_size`."""
    visibility_timeout: Annotated[timedelta, BeforeValidator(_time_span)] = timedelta()
    """How long a failed message stays invisible before the next attempt."""
    max_dequeue_count: Annotated[int, Field(ge=1)] = 5
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
