"""Image deployments: one, or several that callers choose from by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Final, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from imagegen.urls import BaseUrl, origin_of


class ImageApi(StrEnum):
    """The image APIs that an endpoint can offer."""

    OPERATIONS = "operations"
    IMAGES = "images"
    FLUX = "flux"
    MAI = "mai"


_DEFAULT_VERSIONS: Final = {ImageApi.OPERATIONS: "2023-06-01-preview", ImageApi.FLUX: "preview"}


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


def matching(pattern: str, problem: str) -> Callable[[str], str]:
    """A validator for the whole text. Its error is `problem` instead of the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(problem)
        return text

    return check


ApiVersion = Annotated[
    str,
    AfterValidator(
        matching(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest",
            "is not an API version. Use a date such as 2025-04-01-preview, or preview or latest.",
        )
    ),
]
_ModelPath = Annotated[
    str,
    AfterValidator(
        matching(
            r"[a-z0-9][a-z0-9.-]*",
            "is not a part of a route. Use lower-case letters, digits, dots and hyphens, such as flux-2-pro.",
        )
    ),
]
_LONGEST_NAME: Final = 128
_Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]


class DeploymentEntry(BaseModel):
    """One element of ``IMAGE_DEPLOYMENTS``. The ``AZURE_OPENAI_*`` settings are the defaults of missing fields."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid", hide_input_in_errors=True)

    name: _Text
    api: ImageApi
    endpoint: BaseUrl | None = None
    deployment: _Text | None = None
    api_version: ApiVersion | None = None
    api_key_setting: _Text | None = None
    model_path: _ModelPath | None = None


class DeploymentSettings(Protocol):
    """The ``AZURE_OPENAI_*`` settings, and the entries of ``IMAGE_DEPLOYMENTS``."""

    @property
    def endpoint(self) -> str | None: ...
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
    def deployment_entries(self) -> tuple[DeploymentEntry, ...] | None: ...


def resolve(settings: DeploymentSettings, environment: Mapping[str, str]) -> tuple[tuple[Deployment, ...], list[str]]:
    """The deployments, and the problems of their settings. Each problem starts with the name of a setting."""
    entries = settings.deployment_entries
    if entries is None:
        return _resolve_single(settings)
    found: list[Deployment] = []
    problems: list[str] = []
    for number, entry in enumerate(entries):
        place = f"IMAGE_DEPLOYMENTS.{number}"
        key = _key(entry, settings, environment)
        if entry.api_key_setting and key is None:
            problems.append(f"{place}.apiKeySetting: names a setting that is missing. Add it, or correct the name.")
        if entry.name in {other.name for other in entries[:number]}:
            problems.append(f"{place}.name: is also the name of another entry. Use each name once.")
        endpoint = entry.endpoint or settings.endpoint
        if endpoint is None:
            problems.append(
                f"AZURE_OPENAI_ENDPOINT: is missing, and so is {place}.endpoint. Set one of them to the URL of the "
                "image service."
            )
            continue
        deployment = _deployment(entry, settings, endpoint, key)
        found.append(deployment)
        if entry.api is ImageApi.FLUX and deployment.model_path is None:
            problems.append(
                f"{place}.modelPath: is missing, and the deployment is not named after a FLUX model. Set it to one of "
                f"{_KNOWN_PATHS}."
            )
    return tuple(found), problems


def _resolve_single(settings: DeploymentSettings) -> tuple[tuple[Deployment, ...], list[str]]:
    """The deployment of the ``AZURE_OPENAI_*`` settings."""
    problems: list[str] = []
    if settings.endpoint is None:
        problems.append("AZURE_OPENAI_ENDPOINT: is missing. Set it to the URL of the image service.")
    name = settings.deployment or (ImageApi.OPERATIONS.value if settings.api is ImageApi.OPERATIONS else None)
    if name is None:
        problems.append(
            "AZURE_OPENAI_DEPLOYMENT: is missing. Set it to the name of the deployment. Only the API 'operations' "
            "needs none."
        )
    elif len(name) > _LONGEST_NAME:
        problems.append(
            f"AZURE_OPENAI_DEPLOYMENT: has {len(name)} characters; the limit is {_LONGEST_NAME}. Use a shorter name."
        )
    elif settings.endpoint:
        entry = DeploymentEntry.model_validate({"name": name, "api": settings.api})
        deployment = _deployment(entry, settings, settings.endpoint, settings.api_key)
        if settings.api is not ImageApi.FLUX or deployment.model_path:
            return (deployment,), problems
        problems.append(
            f"AZURE_OPENAI_DEPLOYMENT: is not named after a FLUX model. Use one of {_KNOWN_PATHS}, or set modelPath in "
            "IMAGE_DEPLOYMENTS."
        )
    return (), problems


def _key(entry: DeploymentEntry, settings: DeploymentSettings, environment: Mapping[str, str]) -> SecretStr | None:
    if entry.api_key_setting is None:
        return None if _is_foreign(entry, settings) else settings.api_key
    value = environment.get(entry.api_key_setting)
    return SecretStr(value) if value else None


def _is_foreign(entry: DeploymentEntry, settings: DeploymentSettings) -> bool:
    """Whether the entry's endpoint is on another origin, which must not get the main key."""
    if entry.endpoint is None:
        return False
    return settings.endpoint is None or origin_of(entry.endpoint) != origin_of(settings.endpoint)


def _deployment(
    entry: DeploymentEntry, settings: DeploymentSettings, endpoint: str, key: SecretStr | None
) -> Deployment:
    """The entry with its defaults."""
    deployment = entry.deployment or entry.name
    # The version in AZURE_OPENAI_API_VERSION is one of the API in AZURE_OPENAI_API. It says nothing about others.
    version = entry.api_version or (settings.api_version if entry.api is settings.api else None)
    return Deployment(
        name=entry.name,
        api=entry.api,
        endpoint=endpoint,
        deployment=deployment,
        api_version=version or _DEFAULT_VERSIONS.get(entry.api),
        api_key=key,
        scope=settings.scope,
        model_path=(entry.model_path or _flux_path(deployment)) if entry.api is ImageApi.FLUX else None,
    )


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
