"""host.json, local.settings.json and the process environment, as one typed value."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Azurite on its default ports, which "UseDevelopmentStorage=true" stands for; the Python SDK does not know it.
_DEVELOPMENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
)
_OVERRIDE = "AzureFunctionsJobHost__"


class ConfigurationError(Exception):
    """Something the developer has to mend before the host can start. The message says what and where."""


@dataclass(frozen=True)
class QueueSettings:
    """`extensions.queues` of host.json."""

    batch_size: int = 16
    new_batch_threshold: int = 8
    """A new batch is fetched when no more than this many messages are being processed."""
    visibility_timeout: timedelta = timedelta()
    """How long a failed message stays invisible before it is tried again."""
    max_dequeue_count: int = 5
    max_polling_interval: timedelta = timedelta(seconds=2)
    base64: bool = True


@dataclass(frozen=True)
class HostSettings:
    root: Path
    environ: Mapping[str, str]
    route_prefix: str = "api"
    queues: QueueSettings = field(default_factory=QueueSettings)
    log_levels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def host_id(self) -> str:
        """Names this app's locks and schedules in storage: the same for every host of one folder."""
        folder = hashlib.sha256(str(self.root).encode()).hexdigest()[:16]
        return self.environ.get("AzureFunctionsWebHost__hostid", f"local-{folder}")

    def resolve(self, value: str, *, function: str, binding: str) -> str:
        """Replace every %SETTING% in a binding's value.

        Raises
        ------
        ConfigurationError
            A setting is missing.
        """

        def setting(match: re.Match[str]) -> str:
            if match[1] not in self.environ:
                raise ConfigurationError(
                    f"function {function}, binding {binding}: setting {match[1]} of {value!r} is not set"
                )
            return self.environ[match[1]]

        return re.sub(r"%([^%]+)%", setting, value)

    def connection_string(self, connection: str, *, wanted_by: str) -> str:
        """Return the storage connection string a binding's `connection` names.

        Raises
        ------
        ConfigurationError
            There is none, or it is an identity-based connection.
        """
        # A connection called "X" may be the setting "AzureWebJobsX", in Azure as here.
        names = (f"AzureWebJobs{connection}", connection)
        value = next((self.environ[name] for name in names if self.environ.get(name)), "")
        if value == "UseDevelopmentStorage=true":
            return _DEVELOPMENT_STORAGE
        if value:
            return value
        if any(setting.startswith(f"{connection}__") for setting in self.environ):
            raise ConfigurationError(
                f"{wanted_by}: connection {connection} uses an identity ({connection}__...), which the local host "
                f"does not support; set {connection} to a connection string"
            )
        raise ConfigurationError(f"{wanted_by}: connection setting {connection} is not set")


def load(root: Path, environ: Mapping[str, str]) -> HostSettings:
    """Read the settings of the function app in `root`; what the environment sets wins.

    Raises
    ------
    ConfigurationError
        A file is not JSON, or a value is not what its name asks for.
    """
    values = _section(_read(root / "local.settings.json", required=False), "Values")
    merged = {**{name: str(value) for name, value in values.items()}, **environ}
    host = _overridden(_read(root / "host.json", required=True), merged)
    extensions = _section(host, "extensions")
    try:
        return HostSettings(
            root=root,
            environ=merged,
            route_prefix=str(_section(extensions, "http").get("routePrefix", "api")).strip("/"),
            queues=_queues(_section(extensions, "queues")),
            log_levels={k: str(v) for k, v in _section(_section(host, "logging"), "logLevel").items()},
        )
    except ValueError as error:
        raise ConfigurationError(f"{root / 'host.json'}: {error}") from error


def parse_timespan(text: str) -> timedelta:
    """Read .NET's [d.]hh:mm:ss[.fraction]."""
    match = re.fullmatch(r"(?:(\d+)\.)?(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time span like 00:00:30")
    days, hours, minutes, seconds = match.groups()
    return timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))


def _queues(section: Mapping[str, Any]) -> QueueSettings:
    default = QueueSettings()
    batch_size = _whole(section, "batchSize", default.batch_size, least=1, most=32)
    encoding = str(section.get("messageEncoding", "base64")).lower()
    if encoding not in {"base64", "none"}:
        raise ValueError(f"extensions.queues.messageEncoding is {encoding!r}, not base64 or none")
    # Azure idles up to a minute between polls. Nobody waits that long at a desk.
    polling = parse_timespan(str(section.get("maxPollingInterval", "00:00:02")))
    return QueueSettings(
        batch_size=batch_size,
        new_batch_threshold=_whole(section, "newBatchThreshold", batch_size // 2, least=0),
        visibility_timeout=parse_timespan(str(section.get("visibilityTimeout", "00:00:00"))),
        max_dequeue_count=_whole(section, "maxDequeueCount", default.max_dequeue_count, least=1),
        max_polling_interval=min(polling, default.max_polling_interval),
        base64=encoding == "base64",
    )


def _whole(section: Mapping[str, Any], key: str, default: int, *, least: int, most: int | None = None) -> int:
    number = int(section.get(key, default))
    if number < least or (most is not None and number > most):
        raise ValueError(f"extensions.queues.{key} is {number}, not {least} to {most or 'any'}")
    return number


def _overridden(host: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Apply AzureFunctionsJobHost__a__b=value to host.json's a.b, as the Azure host does."""
    for name, value in environ.items():
        if not name.startswith(_OVERRIDE):
            continue
        *path, last = name.removeprefix(_OVERRIDE).split("__")
        section = host
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return host


def _section(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = parent.get(key, {})
    if not isinstance(section, dict):
        raise ConfigurationError(f"{key} must be an object, not {section!r}")
    return cast("dict[str, Any]", section)


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{path} does not exist: a function app has one") from None
        return {}
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} must hold a JSON object")
    return cast("dict[str, Any]", content)
