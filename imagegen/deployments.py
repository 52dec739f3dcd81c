"""Image deployments: one, or several that callers choose from by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator
from pydantic.alias_generators import to_camel

from imagegen.contradictions import SETTINGS, Place, contradictions, other_deployment
from imagegen.endpoints import (
    DEFAULT_VERSIONS,
    LONGEST_NAME,
    MODEL_PATH,
    Endpoint,
    ImageApi,
    is_api_version,
)
from imagegen.pasted import (
    is_plain_name,
    named,
    refuse_blanks,
    refuse_other_than_ascii,
    refuse_paste_error,
    refuse_wrong_key,
)
from imagegen.urls import origin_of


class Deployment(BaseModel):
    """One deployment of an image model."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The `model` of a request."""
    api: ImageApi
    endpoint: str
    deployment: str
    """Its name at the image service."""
    api_version: str | None
    api_key: SecretStr | None
    """None: sign in with Entra ID."""
    scope: str
    model_path: str | None = None
    """The last part of the route; FLUX only."""
    requests_per_minute: int | None = None
    """The quota. None: learned from 429s."""

    @property
    def address(self) -> str:
        """What logs call it, and records if it is one of a pool: host, path and deployment."""
        host = origin_of(self.endpoint).partition("://")[2].removesuffix(":443")
        # A gateway may have several services, at different paths of one host.
        path = [part for part in urlsplit(self.endpoint).path.split("/") if part]
        return "/".join([host, *map(_loggable, path), _loggable(self.deployment)])


def _loggable(name: str) -> str:
    """The name, or a digest of what may be a secret."""
    return name if is_plain_name(name) else sha256(name.encode()).hexdigest()[:8]


def matching(pattern: str, problem: str) -> Callable[[str], str]:
    """A validator for the whole text. Its error is `problem` instead of the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return check


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _no_boolean(value: object) -> object:
    return str(value) if isinstance(value, bool) else value


def _api_version(text: str) -> str:
    if not is_api_version(text):
        raise ValueError("is not an API version. Use a date with or without -preview, or v1, preview or latest.")
    return text


ApiName = Annotated[ImageApi, BeforeValidator(lower)]
ApiVersion = Annotated[
    str,
    BeforeValidator(lower),
    AfterValidator(_api_version),
]
_ModelPath = Annotated[
    str,
    AfterValidator(
        matching(
            MODEL_PATH,
            "is not a part of a route. Use lower-case letters, digits, dots and hyphens.",
        )
    ),
]
MOST_REQUESTS_PER_MINUTE: Final = 100_000
_RequestsPerMinute = Annotated[int, Field(ge=1, le=MOST_REQUESTS_PER_MINUTE), BeforeValidator(_no_boolean)]
_Text = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class DeploymentEntry(BaseModel):
    """One element of ``IMAGE_DEPLOYMENTS``. The ``AZURE_OPENAI_*`` settings are the defaults of missing fields."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid", hide_input_in_errors=True)

    name: _Text = Field(examples=["gpt-image-2"])
    api: ApiName = Field(examples=["images"])
    endpoint: Endpoint | None = Field(None, examples=["https://my-resource.openai.azure.com"])
    deployment: Annotated[_Text, AfterValidator(refuse_blanks)] | None = Field(None, examples=["gpt-image-2"])
    api_version: ApiVersion | None = Field(None, examples=["2025-04-01-preview"])
    api_key_setting: _Text | None = Field(None, examples=["FLUX_KEY"])
    model_path: _ModelPath | None = Field(None, examples=["flux-2-pro"])
    requests_per_minute: _RequestsPerMinute | None = Field(None, examples=[10])

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: object) -> object:
        if isinstance(value, str) and (text := value.strip()):
            refuse_paste_error(text)
            return text
        return value


class DeploymentSettings(Protocol):
    """The ``AZURE_OPENAI_*`` settings, and the entries of ``IMAGE_DEPLOYMENTS``."""

    @property
    def endpoint(self) -> Endpoint | None: ...
    @property
    def api(self) -> ImageApi: ...
    @property
    def api_version(self) -> str | None: ...
    @property
    def deployment(self) -> str | None: ...
    @property
    def api_key(self) -> SecretStr | None: ...
    @property
    def scope(self) -> str: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def deployment_entries(self) -> tuple[DeploymentEntry, ...] | None: ...


def _place(number: int) -> Place:
    names = ("endpoint", "api", "apiVersion", "deployment", "modelPath")
    return Place(*(f"IMAGE_DEPLOYMENTS.{number}.{name}" for name in names))


def resolve(settings: DeploymentSettings, environment: Mapping[str, str]) -> tuple[tuple[Deployment, ...], list[str]]:
    """The deployments, and the problems of their settings. Each problem starts with the name of a setting."""
    problems = list(contradictions(settings.endpoint, settings.api, settings.api_version, SETTINGS))
    entries = settings.deployment_entries
    if entries is None:
        deployments, more = _resolve_single(settings)
        return deployments, problems + more
    found: list[Deployment] = []
    for number, entry in enumerate(entries):
        place = f"IMAGE_DEPLOYMENTS.{number}"
        key = _key(entry, settings, environment)
        problems += _own_key_problem(entry, key, place)
        endpoint = entry.endpoint or settings.endpoint
        if endpoint is None:
            problems.append(
                f"AZURE_OPENAI_ENDPOINT: is missing, and so is {place}.endpoint. Set one of them to the URL of the "
                "image service."
            )
            continue
        problems += contradictions(entry.endpoint, entry.api, entry.api_version, _place(number))
        problems += other_deployment(entry.endpoint, entry.deployment, _place(number))
        problems += _other_model_path(entry, _place(number))
        deployment = _deployment(entry, settings, endpoint, key)
        problems += _pool_problem(deployment, [other for other in found if other.name == entry.name], place)
        found.append(deployment)
        problems += _name_problem(deployment.deployment, f"{place}.{_source_of_name(entry)}")
        if entry.model_path and entry.api is not ImageApi.FLUX:
            problems.append(f"{place}.modelPath: belongs to the API 'flux', but the api is '{entry.api}'. Remove it.")
        if entry.api is ImageApi.FLUX and deployment.model_path is None:
            problems.append(
                f"{place}.modelPath: is missing, and the deployment is not named after a FLUX model. Set it to one of "
                f"{_KNOWN_PATHS}."
            )
    return tuple(found), problems


def _pool_problem(deployment: Deployment, others: Sequence[Deployment], place: str) -> Iterator[str]:
    """Entries with one name are a pool: a generation may go to any of them."""
    if any(other.address.lower() == deployment.address.lower() for other in others):
        yield (
            f"{place}.name: is also the name of another entry, for the same deployment. Entries with one name are a "
            "pool of different deployments. Change the name, endpoint or deployment, or remove the entry."
        )
    elif others and deployment.api is ImageApi.OPERATIONS:
        yield (
            f"{place}.name: is also the name of another entry. Entries with one name are a pool, which the API "
            "'operations' cannot have: the app must repeat a submit at the same deployment. Use another name."
        )
    elif any(other.api is not deployment.api for other in others):
        yield (
            f"{place}.api: differs from that of another entry with the same name. Entries with one name are a pool, "
            "and have one api. Change the name or the api."
        )
    elif any(other.model_path != deployment.model_path for other in others):
        yield (
            f"{place}.modelPath: differs from that of another entry with the same name. Entries with one name are a "
            "pool of one model. Change the name, modelPath or deployment."
        )


def _resolve_single(settings: DeploymentSettings) -> tuple[tuple[Deployment, ...], list[str]]:
    """The deployment of the ``AZURE_OPENAI_*`` settings."""
    endpoint, name = settings.endpoint, _single_name(settings)
    problems = list(other_deployment(endpoint, settings.deployment, SETTINGS))
    if endpoint is None:
        problems.append("AZURE_OPENAI_ENDPOINT: is missing. Set it to the URL of the image service.")
    if name is None:
        problems.append(
            "AZURE_OPENAI_DEPLOYMENT: is missing. Set it to the name of the deployment. Only the API 'operations' "
            "needs none."
        )
    elif len(name) > LONGEST_NAME:
        problems.append(
            f"AZURE_OPENAI_DEPLOYMENT: has {len(name)} characters; the limit is {LONGEST_NAME}. Use a shorter name."
        )
    elif endpoint:
        # The endpoint is this deployment's own, so what it states counts.
        fields = {
            "name": name,
            "api": settings.api,
            "endpoint": endpoint,
            "deployment": name,
            "requestsPerMinute": settings.requests_per_minute,
        }
        entry = DeploymentEntry.model_validate(fields)
        problems += _other_model_path(entry, SETTINGS)
        problems += _name_problem(name, SETTINGS.deployment if settings.deployment else SETTINGS.endpoint)
        deployment = _deployment(entry, settings, endpoint, settings.api_key)
        if settings.api is not ImageApi.FLUX or deployment.model_path:
            return (deployment,), problems
        problems.append(
            f"AZURE_OPENAI_DEPLOYMENT: is not named after a FLUX model. Use one of {_KNOWN_PATHS}, or set modelPath in "
            "IMAGE_DEPLOYMENTS."
        )
    return (), problems


def _single_name(settings: DeploymentSettings) -> str | None:
    stated = settings.endpoint.deployment if settings.endpoint else None
    default = ImageApi.OPERATIONS.value if settings.api is ImageApi.OPERATIONS else None
    return settings.deployment or stated or default


def _source_of_name(entry: DeploymentEntry) -> str:
    """The field that has the name of the deployment at the service."""
    if entry.deployment:
        return "deployment"
    return "endpoint" if entry.endpoint and entry.endpoint.deployment else "name"


def _name_problem(deployment: str, place: str) -> Iterator[str]:
    try:
        refuse_other_than_ascii(deployment)
    except ValueError as error:
        yield f"{place}: has a name of a deployment that {error}"


def _other_model_path(entry: DeploymentEntry, place: Place) -> Iterator[str]:
    stated = entry.endpoint.model_path if entry.endpoint else None
    if entry.model_path:
        given, field = entry.model_path, f"{place.model_path} is"
    elif entry.deployment:
        given, field = _flux_path(entry.deployment), f"{place.deployment} belongs to the model path"
    else:
        given, field = _flux_path(entry.name), "the name belongs to the model path"
    if entry.api is ImageApi.FLUX and stated and given and stated != given:
        yield (
            f"{place.endpoint}: has the model path {named(stated)}, but {field} {named(given)}. Correct one of them, "
            "or remove the route from the endpoint."
        )


def _key(entry: DeploymentEntry, settings: DeploymentSettings, environment: Mapping[str, str]) -> SecretStr | None:
    if entry.api_key_setting is None:
        return None if _is_foreign(entry, settings) else settings.api_key
    value = environment.get(entry.api_key_setting)
    return SecretStr(value) if value else None


def _own_key_problem(entry: DeploymentEntry, key: SecretStr | None, place: str) -> Iterator[str]:
    if entry.api_key_setting is None:
        return
    if key is None:
        yield f"{place}.apiKeySetting: names a setting that is missing. Add it, or correct the name."
        return
    try:
        refuse_wrong_key(key.get_secret_value())
    except ValueError as error:
        yield f"{place}.apiKeySetting: names a setting whose value {error}"


def _is_foreign(entry: DeploymentEntry, settings: DeploymentSettings) -> bool:
    """Whether the entry's endpoint is on another origin, which must not get the main key."""
    if entry.endpoint is None:
        return False
    return settings.endpoint is None or origin_of(entry.endpoint.base) != origin_of(settings.endpoint.base)


def _deployment(
    entry: DeploymentEntry, settings: DeploymentSettings, endpoint: Endpoint, key: SecretStr | None
) -> Deployment:
    """The entry with its defaults."""
    own = entry.endpoint or endpoint.without_statements
    deployment = entry.deployment or own.deployment or entry.name
    model_path = entry.model_path or own.model_path or _flux_path(deployment)
    return Deployment(
        name=entry.name,
        api=entry.api,
        endpoint=endpoint.base,
        deployment=deployment,
        api_version=_version(entry, settings),
        api_key=key,
        scope=settings.scope,
        model_path=model_path if entry.api is ImageApi.FLUX else None,
        requests_per_minute=entry.requests_per_minute,
    )


def _version(entry: DeploymentEntry, settings: DeploymentSettings) -> str | None:
    """The entry's own API version, else the one of the settings. None: a route without a version."""
    own, main = entry.endpoint, settings.endpoint
    version = entry.api_version or (own.api_version if own else None)
    if version is None and own and own.is_v1 and entry.api is ImageApi.IMAGES and own is not main:
        version = "v1"
    # The version in AZURE_OPENAI_API_VERSION is one of the API in AZURE_OPENAI_API. It says nothing about others.
    if version is None and entry.api is settings.api:
        version = settings.api_version or (main.api_version if main else None)
    if version == "v1" and entry.api is ImageApi.IMAGES:  # others call the route without a version so
        return None
    return version or DEFAULT_VERSIONS.get(entry.api)


_FLUX_PATHS: Final = {
    "flux-1.1-pro": "flux-pro-1.1",
    "flux.1-kontext-pro": "flux-kontext-pro",
    "flux.2-pro": "flux-2-pro",
    "flux.2-flex": "flux-2-flex",
}
_KNOWN_PATHS: Final = ", ".join(sorted(_FLUX_PATHS.values()))


def _flux_path(deployment: str) -> str | None:
    name = deployment.lower()
    return name if name in _FLUX_PATHS.values() else _FLUX_PATHS.get(name)
