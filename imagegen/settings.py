"""Environment variables as typed settings. An error reports every problem at once, by the name of the setting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from imagegen.deployments import (
    MOST_REQUESTS_PER_MINUTE,
    ApiName,
    ApiVersion,
    Deployment,
    DeploymentEntry,
    ImageApi,
    resolve,
)
from imagegen.endpoints import Endpoint
from imagegen.events import log_event
from imagegen.pasted import is_plain_name, named, refuse_paste_error, refuse_quotes, refuse_reference, refuse_wrong_key
from imagegen.setting_types import (
    ANY_SCHEDULE,
    ContainerName,
    DeploymentEntries,
    Hosts,
    Keys,
    Origins,
    PublicUrl,
    Schedule,
    Scope,
    WholeNumber,
    Word,
)
from imagegen.urls import BaseUrl

ROUTE_PREFIX = "api"
"""The same as ``extensions.http.routePrefix`` in host.json."""

DEFAULT_SCOPE = "https://cognitiveservices.azure.com/.default"


class SettingsError(Exception):
    """One or more settings are missing or wrong.

    The message names each, says what to do and has an example. It never quotes the value of a key. It may quote what
    the app knows (API names, API versions, routes, placeholders, headers), and the names of deployments, model paths,
    fields and query parameters and the path of an Azure endpoint, except parts that look like a key.
    """


class Settings(BaseModel):
    """The settings of the app. The aliases are the names of the environment variables."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    storage_connection_string: SecretStr | None = Field(
        None,
        alias="AzureWebJobsStorage",
        examples=["DefaultEndpointsProtocol=https;AccountName=me;AccountKey=a2V5;EndpointSuffix=core.windows.net"],
    )
    queue_service_uri: BaseUrl | None = Field(
        None, alias="AzureWebJobsStorage__queueServiceUri", examples=["https://me.queue.core.windows.net"]
    )
    blob_service_uri: BaseUrl | None = Field(
        None, alias="AzureWebJobsStorage__blobServiceUri", examples=["https://me.blob.core.windows.net"]
    )
    storage_client_id: Word | None = Field(
        None, alias="AzureWebJobsStorage__clientId", examples=["12345678-1234-1234-1234-123456789abc"]
    )

    endpoint: Endpoint | None = Field(
        None, alias="AZURE_OPENAI_ENDPOINT", examples=["https://my-resource.openai.azure.com"]
    )
    api_key: SecretStr | None = Field(
        None,
        alias="AZURE_OPENAI_API_KEY",
        examples=["00000000aaaaaaaa00000000aaaaaaaa"],
    )
    scope: Scope = Field(DEFAULT_SCOPE, alias="AZURE_OPENAI_SCOPE", examples=[DEFAULT_SCOPE])
    api: ApiName = Field(ImageApi.IMAGES, alias="AZURE_OPENAI_API", examples=["images"])
    api_version: ApiVersion | None = Field(None, alias="AZURE_OPENAI_API_VERSION", examples=["2025-04-01-preview"])
    deployment: Word | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT", examples=["gpt-image-2"])
    deployment_entries: DeploymentEntries | None = Field(
        None, alias="IMAGE_DEPLOYMENTS", examples=['[{"name": "gpt-image-2", "api": "images"}]']
    )
    requests_per_minute: Annotated[WholeNumber, Field(ge=1, le=MOST_REQUESTS_PER_MINUTE)] | None = Field(
        None, alias="AZURE_OPENAI_REQUESTS_PER_MINUTE", examples=["10"]
    )
    repeat_lost_calls: bool = Field(True, alias="REPEAT_LOST_CALLS", examples=["false"])

    operation_location_allowed_origins: Origins = Field(
        (), alias="OPERATION_LOCATION_ALLOWED_ORIGINS", examples=["https://images.example.com"]
    )
    image_url_allowed_hosts: Hosts = Field(
        (), alias="IMAGE_URL_ALLOWED_HOSTS", examples=["images.example.com,.blob.core.windows.net"]
    )
    poll_schedule: Schedule = Field(alias="POLL_SCHEDULE", examples=[ANY_SCHEDULE])
    generations_container: ContainerName = Field(
        "generations", alias="GENERATIONS_CONTAINER", examples=["image-generations"]
    )
    images_container: ContainerName = Field("images", alias="IMAGES_CONTAINER", examples=["generated-images"])
    generation_timeout_seconds: WholeNumber = Field(
        3_600, alias="GENERATION_TIMEOUT_SECONDS", ge=30, le=86_400, examples=["3600"]
    )
    sas_lifetime_seconds: WholeNumber = Field(
        3_600, alias="SAS_LIFETIME_SECONDS", ge=60, le=6 * 86_400, examples=["3600"]
    )
    max_image_bytes: WholeNumber = Field(64 * 2**20, alias="MAX_IMAGE_BYTES", ge=2**10, le=2**30, examples=["67108864"])
    max_due_per_instance: WholeNumber = Field(200, alias="MAX_DUE_PER_INSTANCE", ge=1, le=10_000, examples=["200"])
    max_active_generations: WholeNumber = Field(
        1_000, alias="MAX_ACTIVE_GENERATIONS", ge=1, le=100_000, examples=["1000"]
    )
    retention_days: WholeNumber = Field(30, alias="RETENTION_DAYS", ge=1, le=3_650, examples=["30"])
    website_hostname: Word | None = Field(None, alias="WEBSITE_HOSTNAME", examples=["me.azurewebsites.net"])
    public_base_url: PublicUrl | None = Field(
        None, alias="PUBLIC_BASE_URL", examples=["https://images.example.com/api"]
    )
    compat_api_keys: Keys = Field((), alias="COMPAT_API_KEYS", examples=["first-long-key,second-long-key"])
    telemetry: bool = Field(False, alias="PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY", examples=["true"])
    """The Python worker reads this setting too, and configures OpenTelemetry for it."""

    deployments: tuple[Deployment, ...] = Field((), init=False)
    """Resolved from the settings above. The first is the default."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            match info.field_name:
                case "deployment_entries":  # JSON, whose values are checked one by one
                    refuse_reference(value)
                    refuse_quotes(value)
                case "compat_api_keys":  # checked one by one; quotes may enclose the whole list
                    refuse_quotes(value)
                case "api_key":
                    refuse_wrong_key(value)
                case _:
                    refuse_paste_error(value)
        return value


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables. An empty variable counts as missing.

    Raises
    ------
    SettingsError
        With a line for each setting that is missing or wrong, without its value.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    settings, invalid = _validate(given)
    # `settings` lacks the invalid ones: `resolve` calls them missing, which they are not.
    invalid_names = {place.split(".")[0] for place, _ in invalid}
    problems = [text for text in _storage_problems(given) if text.split(":")[0] not in invalid_names]
    problems += [f"{place}: {problem}" for place, problem in invalid]
    if "AZURE_OPENAI_API" in invalid_names:  # some APIs need no deployment name
        invalid_names.add("AZURE_OPENAI_DEPLOYMENT")
        bare = settings.endpoint and settings.endpoint.without_statements
        settings = settings.model_copy(update={"endpoint": bare})
    deployments, deployment_problems = resolve(settings, given)
    if "IMAGE_DEPLOYMENTS" not in invalid_names:
        problems += [text for text in deployment_problems if text.split(":")[0] not in invalid_names]
    if problems:
        raise invalid_settings(problems)
    _log_shortened(settings)
    return settings.model_copy(update={"deployments": deployments})


def invalid_settings(problems: Iterable[str]) -> SettingsError:
    """The error for these problems. Each problem starts with the name of a setting."""
    return SettingsError("\n  ".join(["Invalid settings:", *map(_with_example, problems)]))


def _log_shortened(settings: Settings) -> None:
    entries = enumerate(settings.deployment_entries or ())
    endpoints: list[tuple[str, Endpoint | None]] = [
        ("AZURE_OPENAI_ENDPOINT", settings.endpoint),
        *((f"IMAGE_DEPLOYMENTS.{number}.endpoint", entry.endpoint) for number, entry in entries),
    ]
    for place, endpoint in endpoints:
        if endpoint and (endpoint.route or endpoint.api_version):
            log_event(
                "settings.endpoint_shortened", setting=place, route=endpoint.route, api_version=endpoint.api_version
            )


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


def _validate(given: Mapping[str, str]) -> tuple[Settings, list[tuple[str, str]]]:
    """The settings without the invalid ones, and the place and problem of each of those."""
    try:
        return Settings.model_validate(given), []
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
    invalid_names = {str(one["loc"][0]) for one in found}
    valid = {name: value for name, value in given.items() if name not in invalid_names}
    settings = Settings.model_validate({"POLL_SCHEDULE": ANY_SCHEDULE, **valid})
    return settings, [(_where(one), _sentence(one)) for one in found]


_SENTENCES: Final = {
    "missing": "is missing. Set it.",
    "value_error": "{error}",
    "enum": "is not a known value. Use {expected}.",
    "bool_parsing": "is neither true nor false. Use one of these.",
    "int_parsing": "is not a whole number. Use digits only.",
    "int_parsing_size": "is too large. Use a smaller number.",
    "int_type": "is not a whole number. Use digits only.",
    "int_from_float": "is not a whole number. Use digits only.",
    "greater_than_equal": "is too small. Use {ge} or more.",
    "less_than_equal": "is too large. Use {le} or less.",
    "string_type": "is not text. Put it in quotes.",
    "string_too_short": "is empty. Set it, or leave it out.",
    "string_too_long": "has too many characters. Use {max_length} or fewer.",
    "tuple_type": "is not a JSON list. Use a list of objects.",
    "model_type": "is not a JSON object. Use an object with the fields of a deployment.",
    "extra_forbidden": "is not a field of a deployment. Use {fields}.",
}
_FIELDS: Final = {str(field.alias): field for field in DeploymentEntry.model_fields.values()}


def _where(error: ErrorDetails) -> str:
    """The setting and the field. An unknown field may have any name, also a key that was pasted there."""
    parts = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden" and not is_plain_name(parts[-1]):
        parts[-1] = f"({named(parts[-1])})"
    return ".".join(parts)


def _sentence(error: ErrorDetails) -> str:
    """A problem that pydantic found, in words for an operator."""
    context = error.get("ctx", {})
    text = _SENTENCES.get(error["type"], "has an invalid value. Correct it.")
    return text.format_map({**context, "fields": _meant_fields(str(error["loc"][-1]))})


def _meant_fields(name: str) -> str:
    """The field that was meant, such as apiVersion for api_version; else all fields."""
    meant = [field for field in _FIELDS if field.lower() == re.sub("[-_ ]", "", name).lower()]
    return ", ".join(meant or _FIELDS)


def _with_example(problem: str) -> str:
    """The problem of a setting, with a valid value at its end."""
    name, _, field = problem.partition(":")[0].partition(".")
    if field.isdigit():  # an element: of the deployments, or of another list
        field = ""
    if (entry_field := field.partition(".")[2]) in _FIELDS:
        return f'{problem} Example: "{entry_field}": {json.dumps((_FIELDS[entry_field].examples or [""])[0])}'
    return f"{problem} Example: {name}={_example(_ALIASES[name])}"


_ALIASES: Final = {field.alias: field for field in Settings.model_fields.values() if field.alias}


def _example(field: FieldInfo) -> str:
    return str((field.examples or [""])[0])
