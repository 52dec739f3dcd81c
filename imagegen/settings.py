"""Environment variables as typed settings. An error reports every problem at once, by the name of the setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
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
    ValidationError,
)

from imagegen.deployments import ApiVersion, Deployment, DeploymentEntry, ImageApi, matching, resolve
from imagegen.urls import BaseUrl, origin_of

ROUTE_PREFIX = "api"
"""The same as ``extensions.http.routePrefix`` in host.json."""

DEFAULT_SCOPE = "https://cognitiveservices.azure.com/.default"

_ANY_SCHEDULE: Final = "0 * * * * *"
_USE_SIX_FIELDS: Final = f"Use NCRONTAB with six fields, seconds first, such as '{_ANY_SCHEDULE}'."
_ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


class SettingsError(Exception):
    """One or more settings are missing or wrong. The message names each and holds no value."""


def _schedule(text: str) -> str:
    fields = text.upper().split()
    if len(fields) != 6:
        raise ValueError(f"is not a schedule. {_USE_SIX_FIELDS}")
    day, month, weekday = fields[3:]
    # CronSim knows these; NCRONTAB does not. A step, as in */7, is no weekday.
    if re.search(r"[#?]|\bL|L\b|W\b", f"{day} {month.replace('JUL', '')} {weekday}") or re.search(
        r"(?<![/\d])7\b", weekday
    ):
        raise ValueError("uses L, W, #, ? or weekday 7, which NCRONTAB does not support. Leave these out; Sunday is 0.")
    try:
        CronSim(text, _ANY_TIME)
    except CronSimError as error:  # whose message names the field, such as "Bad minute"
        raise ValueError(f"has a {str(error).lower()} field. {_USE_SIX_FIELDS}") from None
    return text


def _list(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


def _origin(text: str) -> str:
    origin = origin_of(text)
    if urlsplit(text).path.strip("/"):
        raise ValueError("has a path. Use the scheme and host only, such as https://example.com.")
    return origin


def _not_empty(entries: tuple[DeploymentEntry, ...]) -> tuple[DeploymentEntry, ...]:
    if not entries:
        raise ValueError("is an empty list. Add a deployment, or remove the setting.")
    return entries


ContainerName = Annotated[
    str,
    AfterValidator(
        matching(
            r"(?!.{64})[a-z0-9](-?[a-z0-9]){2,62}",
            "is not a container name. Use 3 to 63 lower-case letters and digits, with single hyphens between them.",
        )
    ),
]
Scope = Annotated[
    str,
    AfterValidator(matching(r"https://.+/\.default", f"is not a scope. Use one such as {DEFAULT_SCOPE}.")),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(str.lower)], ...], BeforeValidator(_list)]
Schedule = Annotated[str, AfterValidator(_schedule)]
DeploymentEntries = Json[Annotated[tuple[DeploymentEntry, ...], AfterValidator(_not_empty)]]


class Settings(BaseModel):
    """The settings of the app. The aliases are the names of the environment variables."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    storage_connection_string: SecretStr | None = Field(None, alias="AzureWebJobsStorage")
    queue_service_uri: BaseUrl | None = Field(None, alias="AzureWebJobsStorage__queueServiceUri")
    blob_service_uri: BaseUrl | None = Field(None, alias="AzureWebJobsStorage__blobServiceUri")
    storage_client_id: str | None = Field(None, alias="AzureWebJobsStorage__clientId")

    endpoint: BaseUrl | None = Field(None, alias="AZURE_OPENAI_ENDPOINT")
    api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    scope: Scope = Field(DEFAULT_SCOPE, alias="AZURE_OPENAI_SCOPE")
    api: ImageApi = Field(ImageApi.IMAGES, alias="AZURE_OPENAI_API")
    api_version: ApiVersion | None = Field(None, alias="AZURE_OPENAI_API_VERSION")
    deployment: str | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT")
    deployment_entries: DeploymentEntries | None = Field(None, alias="IMAGE_DEPLOYMENTS")
    repeat_lost_calls: bool = Field(True, alias="REPEAT_LOST_CALLS")

    operation_location_allowed_origins: Origins = Field((), alias="OPERATION_LOCATION_ALLOWED_ORIGINS")
    image_url_allowed_hosts: Hosts = Field((), alias="IMAGE_URL_ALLOWED_HOSTS")
    poll_schedule: Schedule = Field(alias="POLL_SCHEDULE")
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
    telemetry: bool = Field(False, alias="PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY")
    """The Python worker reads this setting too, and configures OpenTelemetry for it."""
    website_hostname: str | None = Field(None, alias="WEBSITE_HOSTNAME")

    deployments: tuple[Deployment, ...] = Field((), init=False)
    """Resolved from the settings above. The first is the default."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. An empty variable counts as missing.

    Raises
    ------
    SettingsError
        With a line for each setting that is missing or wrong, without its value.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    problems = [*_storage_problems(given), *_unresolved_references(given)]
    settings, invalid = _validate(given)
    problems += [f"{place}: {problem}" for place, problem in invalid]
    deployments, deployment_problems = resolve(settings, given)
    # `settings` lacks the invalid ones: `resolve` calls them missing, which they are not.
    invalid_names = {place.split(".")[0] for place, _ in invalid}
    if "AZURE_OPENAI_API" in invalid_names:  # some APIs need no deployment name
        invalid_names.add("AZURE_OPENAI_DEPLOYMENT")
    if "IMAGE_DEPLOYMENTS" not in invalid_names:
        problems += [text for text in deployment_problems if text.split(":")[0] not in invalid_names]
    if problems:
        raise SettingsError("\n  ".join(["Invalid settings:", *problems]))
    return settings.model_copy(update={"deployments": deployments})


_CONNECTION_STRING: Final = "AzureWebJobsStorage"
_BLOBS: Final = "AzureWebJobsStorage__blobServiceUri"
_QUEUES: Final = "AzureWebJobsStorage__queueServiceUri"


def _storage_problems(given: Mapping[str, str]) -> Iterable[str]:
    if _CONNECTION_STRING in given:
        names = {part.partition("=")[0].strip().lower() for part in given[_CONNECTION_STRING].split(";")}
        if "sharedaccesssignature" in names and "accountkey" not in names:
            yield (
                f"{_CONNECTION_STRING}: has a SharedAccessSignature, which cannot sign links to images. Use the "
                f"connection string with the AccountKey, or set {_BLOBS} and {_QUEUES} to sign in with an identity."
            )
        return
    if _BLOBS not in given:
        yield (
            f"{_CONNECTION_STRING}: is missing. Set it to a connection string, or set {_BLOBS} and {_QUEUES} to sign "
            "in with an identity."
        )
    elif _QUEUES not in given:
        yield f"{_QUEUES}: is missing. Set it: {_BLOBS} is set, and both belong together."


_CHECK_VAULT: Final = "Check the secret, and the app's role on the vault."


def _unresolved_references(given: Mapping[str, str]) -> Iterable[str]:
    # Azure passes on the text of a reference that it could not resolve. As a key, this text would be no secret.
    for name in sorted(str(field.alias) for field in Settings.model_fields.values() if field.alias):
        if given.get(name, "").startswith("@Microsoft.KeyVault("):
            yield f"{name}: is a Key Vault reference that Azure could not resolve. {_CHECK_VAULT}"


def _validate(given: Mapping[str, str]) -> tuple[Settings, list[tuple[str, str]]]:
    """The settings without the invalid ones, and the place and problem of each of those."""
    try:
        return Settings.model_validate(given), []
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
    invalid_names = {str(one["loc"][0]) for one in found}
    valid = {name: value for name, value in given.items() if name not in invalid_names}
    settings = Settings.model_validate({"POLL_SCHEDULE": _ANY_SCHEDULE, **valid})
    return settings, [(".".join(map(str, one["loc"])), _sentence(one["type"], one.get("ctx", {}))) for one in found]


_SENTENCES: Final = {
    "missing": "is missing. Set it.",
    "value_error": "{error}",
    "enum": "is not a known value. Use {expected}.",
    "bool_parsing": "is neither true nor false. Use one of these.",
    "int_parsing": "is not a whole number. Use digits only.",
    "int_parsing_size": "is too large. Use a smaller number.",
    "int_from_float": "is not a whole number. Use digits only.",
    "greater_than_equal": "is too small. Use {ge} or more.",
    "less_than_equal": "is too large. Use {le} or less.",
    "string_type": "is not text. Put it in quotes.",
    "string_too_short": "is empty. Set it, or leave it out.",
    "string_too_long": "has too many characters. Use {max_length} or fewer.",
    "json_invalid": "is not valid JSON ({place}). Use a list such as {example}.",
    "tuple_type": "is not a JSON list. Use one such as {example}.",
    "model_type": 'is not a JSON object. Use one such as {{"name": "gpt-image-2", "api": "images"}}.',
    "extra_forbidden": "is not a field of a deployment. Use {fields}.",
}
_EXAMPLE: Final = '[{"name": "gpt-image-2", "api": "images"}]'


def _sentence(kind: str, context: Mapping[str, Any]) -> str:
    """A problem that pydantic found, in words for an operator."""
    fields = ", ".join(str(field.alias) for field in DeploymentEntry.model_fields.values())
    place = str(context.get("error", "")).partition(" at ")[2]
    text = _SENTENCES.get(kind, "has an invalid value. Correct it.")
    return text.format_map({**context, "fields": fields, "example": _EXAMPLE, "place": place})
