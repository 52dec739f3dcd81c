"""Where images can come from: one deployment, or several that callers choose from by name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from imagegen.urls import BaseUrl

API_VERSION: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest)$"


class ImageApi(StrEnum):
    """The image APIs that an endpoint can speak."""

    OPERATIONS = "operations"
    IMAGES = "images"
    FLUX = "flux"
    MAI = "mai"


_DEFAULT_VERSIONS: Final = {ImageApi.OPERATIONS: "2023-06-01-preview", ImageApi.FLUX: "preview"}


class Deployment(BaseModel):
    """One place that images can come from."""

    model_config = ConfigDict(frozen=True)

    name: str
    """What callers write as ``model``."""
    api: ImageApi
    endpoint: str
    deployment: str
    """What the image service calls it."""
    api_version: str | None
    api_key: SecretStr | None
    """None: sign in with Entra ID."""
    scope: str
    model_path: str | None = None
    """FLUX alone: the last part of the route."""


_LONGEST_NAME: Final = 128
_Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME)]


class DeploymentEntry(BaseModel):
    """One element of ``IMAGE_DEPLOYMENTS``. What is left out is taken from the ``AZURE_OPENAI_*`` settings."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid", hide_input_in_errors=True)

    name: _Text
    api: ImageApi
    endpoint: BaseUrl | None = None
    deployment: _Text | None = None
    api_version: Annotated[str, Field(pattern=API_VERSION)] | None = None
    api_key_setting: _Text | None = None
    model_path: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")] | None = None


class SingleDeployment(Protocol):
    """The ``AZURE_OPENAI_*`` settings, and ``IMAGE_DEPLOYMENTS`` where there are several."""

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


def resolve(settings: SingleDeployment, environment: Mapping[str, str]) -> tuple[tuple[Deployment, ...], list[str]]:
    """The deployments, and what is wrong with them, each problem by the name of the setting."""
    entries = settings.deployment_entries
    several = entries is not None
    if entries is None:
        name = settings.deployment or (ImageApi.OPERATIONS.value if settings.api is ImageApi.OPERATIONS else None)
        if name is None:
            missing = [] if settings.endpoint else ["AZURE_OPENAI_ENDPOINT: is missing"]
            return (), [*missing, "AZURE_OPENAI_DEPLOYMENT: is missing; only AZURE_OPENAI_API 'operations' needs none"]
        if len(name) > _LONGEST_NAME:
            return (), [f"AZURE_OPENAI_DEPLOYMENT: has more than {_LONGEST_NAME} characters"]
        entries = (DeploymentEntry.model_validate({"name": name, "api": settings.api}),)
    problems: list[str] = []
    found: list[Deployment] = []
    for number, entry in enumerate(entries):
        where = f"IMAGE_DEPLOYMENTS.{number}" if several else "AZURE_OPENAI"
        key, problem = _key(entry, settings.api_key, environment, where)
        if problem:
            problems.append(problem)
        if entry.name in {one.name for one in found}:
            problems.append(f"{where}.name: names a deployment that another entry names too")
        endpoint = entry.endpoint or settings.endpoint
        if endpoint is None:
            problems.append("AZURE_OPENAI_ENDPOINT: is missing" + (f", and so is {where}.endpoint" if several else ""))
            continue
        deployment = entry.deployment or entry.name
        path = entry.model_path or _model_path(deployment)
        if entry.api is ImageApi.FLUX and path is None:
            setting = f"{where}.modelPath: is missing;" if several else "AZURE_OPENAI_DEPLOYMENT:"
            known = ", ".join(sorted(_FLUX_PATHS.values()))
            problems.append(
                f"{setting} the route of this FLUX deployment cannot be guessed; give modelPath in "
                f"IMAGE_DEPLOYMENTS, or use one of {known}"
            )
        version = entry.api_version or (settings.api_version if entry.api is settings.api else None)
        found.append(
            Deployment(
                name=entry.name,
                api=entry.api,
                endpoint=endpoint,
                deployment=deployment,
                api_version=version or _DEFAULT_VERSIONS.get(entry.api),
                api_key=key,
                scope=settings.scope,
                model_path=path if entry.api is ImageApi.FLUX else None,
            )
        )
    return tuple(found), problems


def _key(
    entry: DeploymentEntry, default: SecretStr | None, environment: Mapping[str, str], where: str
) -> tuple[SecretStr | None, str | None]:
    if entry.api_key_setting is None:
        return default, None
    if value := environment.get(entry.api_key_setting):
        return SecretStr(value), None
    return None, f"{where}.apiKeySetting: names a setting that is missing"


_FLUX_PATHS: Final = {
    "flux-1.1-pro": "flux-pro-1.1",
    "flux.1-kontext-pro": "flux-kontext-pro",
    "flux.2-pro": "flux-2-pro",
    "flux.2-flex": "flux-2-flex",
}


def _model_path(deployment: str) -> str | None:
    name = deployment.lower()
    return name if name in _FLUX_PATHS.values() else _FLUX_PATHS.get(name)
