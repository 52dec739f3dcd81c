"""Causes of a 404 on a submit or a call, in words for the operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from imagegen.deployments import Deployment
from imagegen.generation import GenerationError

_NAMES_DEPLOYMENT: Final = re.compile(r"deployment|\bmodel\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NotFoundCauses:
    """Why a route of one API may be missing. Each cause is a sentence that says what to check."""

    route: tuple[str, ...]
    """Concerning the URL, the likeliest first."""
    deployment: str | None = None
    """Concerning the deployment; None if the API has none."""

    def in_order(self, error: GenerationError) -> str:
        """The causes, the likeliest first. A service that names the deployment or the model has the route."""
        own = (self.deployment,) if self.deployment else ()
        has_route = _NAMES_DEPLOYMENT.search(f"{error.code} {error.message}")
        causes = (*own, *self.route) if has_route else (*self.route, *own)
        return " ".join(f"{number}. {cause}" for number, cause in enumerate(causes, 1))


def deployment_cause(deployment: Deployment, *, more: str = "") -> str:
    """The deployment has another name, or is in another resource."""
    return (
        f"The deployment: '{deployment.deployment}' must be its exact name in Azure, in the resource of this endpoint "
        f"(AZURE_OPENAI_DEPLOYMENT, or deployment in IMAGE_DEPLOYMENTS).{more}"
    )


def endpoint_cause(deployment: Deployment, *, example: str) -> str:
    """The endpoint is another resource, or has a path that does not belong to it."""
    path = urlsplit(deployment.endpoint).path.rstrip("/")
    shape = (
        f"it has the path '{path}', which is right for a gateway or a project only. A resource needs none, such as"
        if path
        else "it must be the resource or the gateway that has this API, such as"
    )
    return f"The endpoint (AZURE_OPENAI_ENDPOINT, or endpoint in IMAGE_DEPLOYMENTS): {shape} {example}."


def version_cause(deployment: Deployment, *, examples: str, optional: bool = False) -> str:
    """The service does not have this API version on this route."""
    place = "The API version (AZURE_OPENAI_API_VERSION, or apiVersion in IMAGE_DEPLOYMENTS)"
    if deployment.api_version is None:
        return f"{place}: it is not set, which is right for Azure. If your gateway needs a date, set {examples}."
    return f"{place}: it is '{deployment.api_version}'; use {examples}{', or leave it out' if optional else ''}."


def asked(method: str | None, url: str) -> str:
    """The request for a message: method, scheme, host and path, without user, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{method} {parts.scheme}://{host}{parts.path}"
