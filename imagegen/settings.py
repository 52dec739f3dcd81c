"""Environment to typed settings. Every problem is reported at once, by the name of the setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from imagegen.deployments import API_VERSION, Deployment, DeploymentEntry, ImageApi, resolve
from imagegen.urls import BaseUrl, origin_of

ROUTE_PREFIX = "api"
"""host.json's ``extensions.http.routePrefix``."""

DEFAULT_SCOPE = "https://cognitiveservices.azure.com/.default"

_ANY_SCHEDULE = "0 * * * * *"
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class SettingsError(Exception):
    """One or more settings are missing or wrong. The message names each and holds no value."""


def _schedule(text: str) -> str:
    if len(text.split()) != 6:
        raise ValueError("must be NCRONTAB with six fields, seconds first, such as '0 * * * * *'")
    if re.search(r"[#?]|\bL|L\b|W\b|\b7\b", text.split(maxsplit=3)[3].upper().replace("JUL", "")):
        raise ValueError("has L, W, #, ? or weekday 7, which NCRONTAB does not know")
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


ContainerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$", max_length=63)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(str.lower)], ...], BeforeValidator(_list)]


class Settings(BaseModel):
    """What the app was told. The names of the environment are the aliases."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    storage_connection_string: SecretStr | None = Field(None, alias="AzureWebJobsStorage")
    queue_service_uri: BaseUrl | None = Field(None, alias="AzureWebJobsStorage__queueServiceUri")
    blob_service_uri: BaseUrl | None = Field(None, alias="AzureWebJobsStorage__blobServiceUri")
    storage_client_id: str | None = Field(None, alias="AzureWebJobsStorage__clientId")

    endpoint: BaseUrl | None = Field(None, alias="AZURE_OPENAI_ENDPOINT")
    api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    scope: str = Field(DEFAULT_SCOPE, alias="AZURE_OPENAI_SCOPE", pattern=r"^https://.+/\.default$")
    api: ImageApi = Field(ImageApi.IMAGES, alias="AZURE_OPENAI_API")
    api_version: str | None = Field(None, alias="AZURE_OPENAI_API_VERSION", pattern=API_VERSION)
    deployment: str | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT")
    deployment_entries: Json[Annotated[tuple[DeploymentEntry, ...], Field(min_length=1)]] | None = Field(
        None, alias="IMAGE_DEPLOYMENTS"
    )
    repeat_lost_calls: bool = Field(True, alias="REPEAT_LOST_CALLS")

    operation_location_allowed_origins: Origins = Field((), alias="OPERATION_LOCATION_ALLOWED_ORIGINS")
    image_url_allowed_hosts: Hosts = Field((), alias="IMAGE_URL_ALLOWED_HOSTS")
    poll_schedule: Annotated[str, AfterValidator(_schedule)] = Field(alias="POLL_SCHEDULE")
    generations_container: ContainerName = Field("generations", alias="GENERATIONS_CONTAINER")
    images_container: ContainerName = Field("images", alias="IMAGES_CONTAINER")
    generation_timeout_seconds: int = Field(3_600, alias="GENERATION_TIMEOUT_SECONDS", ge=30, le=86_400)
    sas_lifetime_seconds: int = Field(3_600, alias="SAS_LIFETIME_SECONDS", ge=60, le=6 * 86_400)
    max_image_bytes: int = Field(64 * 2**20, alias="MAX_IMAGE_BYTES", ge=2**10, le=2**30)
    max_due_per_instance: int = Field(200, alias="MAX_DUE_PER_INSTANCE", ge=1, le=10_000)
    max_active_generations: int = Field(1_000, alias="MAX_ACTIVE_GENERATIONS", ge=1, le=100_000)
    retention_days: int = Field(30, alias="RETENTION_DAYS", ge=1, le=3_650)
    public_base_url: BaseUrl | None = Field(None, alias="PUBLIC_BASE_URL")
    compat_api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_list)] = Field((), alias="COMPAT_API_KEYS")
    website_hostname: str | None = Field(None, alias="WEBSITE_HOSTNAME")

    deployments: tuple[Deployment, ...] = Field((), init=False)
    """Where images can come from, the default first: what the settings above come to."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables; an empty one counts as not set.

    Raises
    ------
    SettingsError
        Naming every setting that is missing or wrong, a line each, without their values.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    problems = [] if any(name in given for name in _STORAGE) else [_NO_STORAGE]
    if _STORAGE[0] not in given and _STORAGE[1] in given and _QUEUES not in given:
        problems.append(f"{_QUEUES}: is missing; it goes with {_STORAGE[1]}")
    # A reference that Azure could not resolve arrives as its own text, which anybody could guess.
    problems += [f"{name}: {_UNRESOLVED}" for name in sorted(_names()) if given.get(name, "").startswith(_REFERENCE)]
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        problems += [_problem(one) for one in found]
        # What is right so far may still name deployments that are not.
        wrong_ones = {str(one["loc"][0]) for one in found}
        rest = {name: value for name, value in given.items() if name not in wrong_ones}
        settings = Settings.model_validate({"POLL_SCHEDULE": _ANY_SCHEDULE, **rest})
        if "IMAGE_DEPLOYMENTS" not in wrong_ones:
            if "AZURE_OPENAI_API" in wrong_ones:  # whether it needs a deployment, nobody knows
                wrong_ones.add("AZURE_OPENAI_DEPLOYMENT")
            problems += [text for text in resolve(settings, given)[1] if text.split(":")[0] not in wrong_ones]
    else:
        deployments, wrong = resolve(settings, given)
        problems += wrong
        if not problems:
            return settings.model_copy(update={"deployments": deployments})
    raise SettingsError("\n  ".join(["The settings of the app must be mended:", *problems]))


_REFERENCE = "@Microsoft.KeyVault("
_UNRESOLVED = "is a Key Vault reference that Azure could not resolve; check the secret, and the app's role on the vault"


def _names() -> set[str]:
    return {str(field.alias) for field in Settings.model_fields.values() if field.alias}


_STORAGE = ("AzureWebJobsStorage", "AzureWebJobsStorage__blobServiceUri")
_QUEUES = "AzureWebJobsStorage__queueServiceUri"
_NO_STORAGE = (
    "AzureWebJobsStorage: is missing; set it to a connection string, or set "
    "AzureWebJobsStorage__blobServiceUri to sign in to storage with an identity"
)


def _problem(found: Mapping[str, Any]) -> str:
    message = "is missing" if found["type"] == "missing" else str(found["msg"]).removeprefix("Value error, ")
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {message[:1].lower()}{message[1:]}"
