"""Health checks of an image service: one free GET, and what its answer shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from imagegen.deployments import Deployment
from imagegen.upstream.protocol import CheckProblem
from imagegen.upstream.refusals import throttle_of
from imagegen.upstream.response import NoResponseError, UpstreamResponse
from imagegen.upstream.session import UnsendableError, UpstreamSession

_NO_OPERATION: Final = "00000000-0000-0000-0000-000000000000"


def check_model_list(session: UpstreamSession, deployment: Deployment) -> CheckProblem | None:
    """Ask for the list of models, which is free and shows whether the service accepts the credential."""
    route = "/openai/v1/models"
    response = _send(session, deployment, f"{deployment.endpoint}{route}", generation_id="health")
    if isinstance(response, CheckProblem):
        return response
    if "data" in _json(response):
        return None
    return _problem(
        deployment,
        response,
        f"its list of models ({route})",
        "A gateway without the list is no problem. If generations fail with upstreamNotFound or upstreamAnswerInvalid, "
        "correct the endpoint in the settings.",
    )


def check_operations(session: UpstreamSession, deployment: Deployment) -> CheckProblem | None:
    """Ask for an operation that does not exist. A 404 in the words of the API is the right answer."""
    url = f"{deployment.endpoint}/openai/operations/images/{_NO_OPERATION}?api-version={deployment.api_version}"
    response = _send(session, deployment, url, generation_id=_NO_OPERATION)
    if isinstance(response, CheckProblem):
        return response
    # The API's own code. A router's 404 may have the code "NotFound".
    if _json(response).keys() - {"error"} or (response.status == 404 and response.error.code == "notFound"):
        return None
    return _problem(
        deployment,
        response,
        "an operation (/openai/operations/images/{id})",
        "A gateway with other routes for operations is no problem. If generations fail with upstreamNotFound, correct "
        "the endpoint, the API or its version in the settings.",
    )


def _problem(deployment: Deployment, response: UpstreamResponse, asked_for: str, advice: str) -> CheckProblem:
    """What an answer shows that is not the right one, and not a wrong credential or a failure of the service."""
    answer = f"the '{deployment.api}' API: the service answered {_described(response)} for {asked_for}"
    if throttle_of(response, datetime.now(UTC)):
        return CheckProblem(
            f"{answer}. The service is there, but throttles. Generations wait until it accepts calls.", certain=False
        )
    message = f"{answer}. The host answers, but this does not show that the route for images exists. {advice}"
    return CheckProblem(message, certain=False)


def _send(
    session: UpstreamSession, deployment: Deployment, url: str, *, generation_id: str
) -> UpstreamResponse | CheckProblem:
    """The response, or the problem of the network, the credential or the service."""
    try:
        response = session.send("GET", url, event="upstream.checked", generation_id=generation_id)
    except UnsendableError as error:
        return CheckProblem(f"the '{deployment.api}' API: {error}")
    except NoResponseError as error:
        return CheckProblem(f"the '{deployment.api}' API is out of reach: {error}. Check its endpoint in the settings.")
    # A used-up quota may be a 403, and is no wrong credential.
    problem = None if throttle_of(response, datetime.now(UTC)) else response.health_problem
    return CheckProblem(problem) if problem else response


def _json(response: UpstreamResponse) -> dict[str, Any]:
    """The JSON object of a 200; empty for any other answer, such as a web page."""
    try:
        return response.json() if response.status == 200 else {}
    except NoResponseError:
        return {}


def _described(response: UpstreamResponse) -> str:
    return f"200 with {response.media_type}" if response.status == 200 else str(response.status)
