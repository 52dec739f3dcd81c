"""Environment to typed settings. Every problem is reported at once, by the name of the setting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

ROUTE_PREFIX = "api"
"""host.json's ``extensions.http.routePrefix``."""

DEFAULT_SCOPE = "https://cognitiveservices.azure.com/.default"

_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class SettingsError(Exception):
    """One or more settings are missing or wrong. The message names each and holds no value."""


class Api(StrEnum):
    """The image APIs that an endpoint can speak."""

    OPERATIONS = "operations"


class Deployment(BaseModel):
    """One place that images can come from."""

    model_config = ConfigDict(frozen=True)

    name: str
    """What callers write as ``model``."""
    api: Api
    endpoint: str
    api_version: str
    api_key: SecretStr | None
    """None: sign in with Entra ID."""
    scope: str


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling: ``https://example.com:443``.

    Raises
    ------
    ValueError
        When the URL has no http(s) scheme, no host, or a port that is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text holds a part of the URL
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{(443 if parts.scheme == 'https' else 80) if port is None else port}"


def is_loopback(host: str) -> bool:
    """Whether this host name means the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def _base_url(url: str) -> str:
    origin_of(url)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be scheme and host (a gateway's path may follow), no user, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https (http is taken for this machine's own addresses only)")
    return url.rstrip("/")


def _schedule(text: str) -> str:
    if len(text.split()) != 6:
        raise ValueError("must be NCRONTAB with six fields, seconds first, such as '0 * * * * *'")
    try:
        CronSim(text, _ANY_TIME)
    except CronSimError as error:
        raise ValueError(f"is not a schedule: {error}") from None
    return text


def _list(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


def _origin(text: str) -> str:
    origin = origin_of(text)
    if urlsplit(text).path.strip("/"):
        raise ValueError("must be origins: scheme and host, without a path")
    return origin


BaseUrl = Annotated[str, AfterValidator(_base_url)]
ContainerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$", max_length=63)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(str.lower)], ...], BeforeValidator(_list)]


class Settings(BaseModel):
    """What the app was told. The names of the environment are the aliases."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    storage_connection_string: SecretStr | None = Field(None, alias="AzureWebJobsStorage")
    blob_service_uri: BaseUrl | None = Field(None, alias="AzureWebJobsStorage__blobServiceUri")
    storage_client_id: str | None = Field(None, alias="AzureWebJobsStorage__clientId")

    endpoint: BaseUrl = Field(alias="AZURE_OPENAI_ENDPOINT")
    api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    scope: str = Field(DEFAULT_SCOPE, alias="AZURE_OPENAI_SCOPE", pattern=r"^https://.+/\.default$")
    api: Api = Field(Api.OPERATIONS, alias="AZURE_OPENAI_API")
    api_version: str = Field(
        "2023-06-01-preview",
        alias="AZURE_OPENAI_API_VERSION",
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$",
    )
    deployment: str | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT")

    operation_location_allowed_origins: Origins = Field((), alias="OPERATION_LOCATION_ALLOWED_ORIGINS")
    image_url_allowed_hosts: Hosts = Field((), alias="IMAGE_URL_ALLOWED_HOSTS")
    poll_schedule: Annotated[str, AfterValidator(_schedule)] = Field(alias="POLL_SCHEDULE")
    generations_container: ContainerName = Field("generations", alias="GENERATIONS_CONTAINER")
    images_container: ContainerName = Field("images", alias="IMAGES_CONTAINER")
    generation_timeout_seconds: int = Field(3_600, alias="GENERATION_TIMEOUT_SECONDS", ge=30, le=86_400)
    sas_lifetime_seconds: int = Field(3_600, alias="SAS_LIFETIME_SECONDS", ge=60, le=6 * 86_400)
    max_image_bytes: int = Field(64 * 2**20, alias="MAX_IMAGE_BYTES", ge=2**10, le=2**30)
    max_active_generations: int = Field(1_000, alias="MAX_ACTIVE_GENERATIONS", ge=1, le=100_000)
    retention_days: int = Field(30, alias="RETENTION_DAYS", ge=1, le=3_650)
    public_base_url: BaseUrl | None = Field(None, alias="PUBLIC_BASE_URL")
    compat_api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_list)] = Field((), alias="COMPAT_API_KEYS")
    website_hostname: str | None = Field(None, alias="WEBSITE_HOSTNAME")

    @property
    def default_deployment(self) -> Deployment:
        return Deployment(
            name=self.deployment or self.api.value,
            api=self.api,
            endpoint=self.endpoint,
            api_version=self.api_version,
            api_key=self.api_key,
            scope=self.scope,
        )


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables; an empty one counts as not set.

    Raises
    ------
    SettingsError
        Naming every setting that is missing or wrong, a line each, without their values.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    problems = [] if any(name in given for name in _STORAGE) else [_NO_STORAGE]
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        problems += [_problem(found) for found in error.errors(include_input=False, include_url=False)]
    else:
        if not problems:
            return settings
    raise SettingsError("\n  ".join(["The settings of the app must be mended:", *problems]))


_STORAGE = ("AzureWebJobsStorage", "AzureWebJobsStorage__blobServiceUri")
_NO_STORAGE = (
    "AzureWebJobsStorage: is missing; set it to a connection string, or set "
    "AzureWebJobsStorage__blobServiceUri to sign in to storage with an identity"
)


def _problem(found: Mapping[str, Any]) -> str:
    message = "is missing" if found["type"] == "missing" else str(found["msg"]).removeprefix("Value error, ")
    return f"{found['loc'][0]}: {message[:1].lower()}{message[1:]}"
