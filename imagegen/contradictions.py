"""What an endpoint states against the other settings of its deployment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from imagegen.endpoints import DEFAULT_VERSIONS, Endpoint, ImageApi
from imagegen.pasted import named


@dataclass(frozen=True, slots=True)
class Place:
    """Where the fields of a deployment are set: the names for messages."""

    endpoint: str = "AZURE_OPENAI_ENDPOINT"
    api: str = "AZURE_OPENAI_API"
    api_version: str = "AZURE_OPENAI_API_VERSION"
    deployment: str = "AZURE_OPENAI_DEPLOYMENT"
    model_path: str = "modelPath"


SETTINGS: Final = Place()


def contradictions(endpoint: Endpoint | None, api: ImageApi, version: str | None, place: Place) -> Iterator[str]:
    """Differences between what an endpoint states and the fields that are set for it."""
    stated = endpoint.api_version if endpoint else None
    if endpoint and api not in endpoint.apis:
        others = " or ".join(f"'{other}'" for other in ImageApi if other in endpoint.apis)
        yield (
            f"{place.endpoint}: has the route '{endpoint.route}' of the API {others}, but {place.api} is '{api}'. Set "
            f"{place.api} to {others}, or remove the route from the endpoint."
        )
        return
    if version and stated and version != stated:
        yield (
            f"{place.endpoint}: has the api-version '{stated}', but {place.api_version} is '{version}'. Remove one of "
            "them."
        )
    elif endpoint and endpoint.is_v1 and api is ImageApi.IMAGES and version and version[0].isdigit():
        yield (
            f"{place.endpoint}: has the route '{endpoint.route}', which takes no dated version, but "
            f"{place.api_version} is '{version}'. Remove {place.api_version}, or the route from the endpoint."
        )
    elif "v1" in (version, stated) and api in DEFAULT_VERSIONS:
        yield (
            f"{place.api_version if version else place.endpoint}: has the API version 'v1', which the API '{api}' does "
            f"not have. Remove it, or use '{DEFAULT_VERSIONS[api]}'."
        )


def other_deployment(endpoint: Endpoint | None, deployment: str | None, place: Place) -> Iterator[str]:
    stated = endpoint.deployment if endpoint else None
    if stated and deployment and stated.lower() != deployment.lower():
        yield (
            f"{place.endpoint}: has the deployment {named(stated)}, but {place.deployment} is {named(deployment)}. "
            "Correct one of them, or remove the route from the endpoint."
        )
