"""Health checks of an image service: one free GET, and what its answer shows."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from imagegen.deployments import Deployment, ImageApi
from imagegen.upstream.protocol import CheckProblem
from imagegen.upstream.response import NoResponseError, UpstreamResponse
from imagegen.upstream.session import UpstreamSession

_NO_OPERATION: Final = "00000000-0000-0000-0000-000000000000"
_AZURE_HOSTS: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_ROUTE_CODES: Final = frozenset({"http404", "404"})
"""Error codes of a 404 that comes from a router. The asynchronous API itself says ``notFound``."""


def check_model_list(session: UpstreamSession, deployment: Deployment) -> CheckProblem | None:
    """Ask for the list of models, which is free and shows whether the service accepts the credential."""
    route = "/openai/v1/models"
    response = _send(session, deployment, f"{deployment.endpoint}{route}", generation_id="health")
    if isinstance(response, CheckProblem):
        return response
    if response.status != 404 and _is_of_an_api(response):
        return None
    answer = f"the '{deployment.api}' API: the service answered {_described(response)} for its list of models ({route})"
    if response.status == 404 and _has_wrong_path(deployment):
        return CheckProblem(
            f"{answer}. Every Azure endpoint has this list, so the path of the endpoint in the settings is wrong. "
            "Remove the path."
        )
    return CheckProblem(
        f"{answer}. The host answers, but this does not show that the route for images exists. A gateway without the "
        "list is no problem. If generations fail with upstreamNotFound or upstreamAnswerInvalid, correct the endpoint "
        "in the settings.",
        certain=False,
    )


def check_operations(session: UpstreamSession, deployment: Deployment) -> CheckProblem | None:
    """Ask for an operation that does not exist. A 404 in the words of the API is the right answer."""
    url = f"{deployment.endpoint}/openai/operations/images/{_NO_OPERATION}?api-version={deployment.api_version}"
    response = _send(session, deployment, url, generation_id=_NO_OPERATION)
    if isinstance(response, CheckProblem):
        return response
    if response.error.code not in _ROUTE_CODES if response.status == 404 else _is_of_an_api(response):
        return None
    return CheckProblem(
        f"the '{deployment.api}' API: the service answered {_described(response)} for an operation "
        "(/openai/operations/images/{id}), but not with an error of this API. The host answers, but this does not show "
        "that the route exists. A gateway with other routes for operations is no problem. If generations fail with "
        "upstreamNotFound, correct the endpoint, the API or its version in the settings.",
        certain=False,
    )


def _send(
    session: UpstreamSession, deployment: Deployment, url: str, *, generation_id: str
) -> UpstreamResponse | CheckProblem:
    """The response, or the problem of the network, the credential or the service."""
    try:
        response = session.send("GET", url, event="upstream.checked", generation_id=generation_id)
    except NoResponseError as error:
        return CheckProblem(f"the '{deployment.api}' API is out of reach: {error}. Check its endpoint in the settings.")
    problem = response.health_problem
    return CheckProblem(problem) if problem else response


def _is_of_an_api(response: UpstreamResponse) -> bool:
    """False for a redirect, for a route that does not exist, and for a web page with status 200."""
    if response.status == 200:
        try:
            response.json()
        except NoResponseError:
            return False
    return response.status < 300 or (response.status >= 400 and response.status not in (405, 410))


def _described(response: UpstreamResponse) -> str:
    return f"200 with {response.media_type}" if response.status == 200 else str(response.status)


def _has_wrong_path(deployment: Deployment) -> bool:
    """Whether an Azure host has a base path that Azure does not have. Its projects have ``/api/projects/{name}``."""
    parts = urlsplit(deployment.endpoint)
    is_azure = (parts.hostname or "").endswith(_AZURE_HOSTS)
    has_path = bool(parts.path.strip("/")) and not parts.path.startswith("/api/projects/")
    return deployment.api is ImageApi.IMAGES and is_azure and has_path
