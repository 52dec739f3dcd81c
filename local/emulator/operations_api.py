"""The asynchronous image API of the 2023 previews: submit, poll, delete."""

import asyncio
import re
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions
from local.emulator.auth import Authorization, authorize, wrong_key
from local.emulator.connection import Dropped
from local.emulator.emulator import Emulator, base_url
from local.emulator.errors import (
    OperationErrors,
    ServiceError,
    content_filter,
    invalid_payload,
    json_response,
    resource_not_found,
)
from local.emulator.faults import Fault, Faults
from local.emulator.image_storage import ImageStorage
from local.emulator.operation import LIFETIME, Operation, OperationRequest
from local.emulator.validation import json_object, validate

_PATHS = {"documented": "/openai/operations/images/", "example": "/openai/dalle/operations/images/"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TERMINAL = ("succeeded", "canceled", "failed", "deleted")

_INTERNAL = (500, "internalFailure", "Internal error. Please retry.")
_NOT_FOUND = (404, "notFound", "The resource is not found.")
_TOO_MANY = (429, "tooManyRequests", "Too many requests. Please retry later.")
_REFUSALS: dict[str, tuple[int, str, str]] = {
    "submit-400": (400, "invalidPayload", "The request data is invalid for this operation."),
    "submit-401": (401, wrong_key().code, wrong_key().message),
    "submit-403": (403, "forbidden", "The operation is forbidden for the current user/api key."),
    "submit-429": _TOO_MANY,
    "submit-500": _INTERNAL,
    "poll-404": _NOT_FOUND,
    "poll-429": _TOO_MANY,
    "poll-500": _INTERNAL,
}
_SUBMIT_FAULTS = (
    *(word for word in _REFUSALS if word.startswith("submit-")),
    "submit-no-location",
    "submit-hang",
    "submit-drop",
)
_POLL_FAULTS = (*(word for word in _REFUSALS if word.startswith("poll-")), "poll-garbage", "poll-drop")


class OperationsApi:
    """The operations, by id."""

    def __init__(self, emulator: Emulator, images: ImageStorage) -> None:
        self._emulator = emulator
        self._images = images
        self._operations = {name: Operation.from_kept(name, kept) for name, kept in emulator.kept.rows("operation")}

    def routes(self) -> list[Route]:
        routes = [Route("/openai/images/generations:submit", self._submit, methods=["POST"])]
        for path in _PATHS.values():
            routes.append(Route(path + "{id}", self._poll, methods=["GET"]))
            routes.append(Route(path + "{id}", self._delete, methods=["DELETE"]))
        for route in routes:
            cast("set[str]", route.methods).discard("HEAD")  # Starlette adds it, the API does not have it
        return routes

    def reset(self) -> None:
        self._operations.clear()
        self._emulator.kept.remove("operation")

    # Submit

    async def _submit(self, request: Request) -> Response:
        self._emulator.stats.submits += 1
        authorization = self._check(request)
        operation_id = _operation_id(request)
        if operation_id is not None:
            self._emulator.stats.operation(operation_id).submits += 1
        errors = OperationErrors()
        asked = validate(OperationRequest, await json_object(request, errors), errors)

        # There is no `await` from here to the response: two submits with one Operation-Id cannot both create it.
        faults = Faults.parse(asked.prompt)
        fault = self._emulator.fault_counts.next(operation_id or repr(asked), faults, _SUBMIT_FAULTS)
        if fault is not None and fault.word in _REFUSALS:
            raise _refusal(fault, faults)
        operation = self._existing(operation_id, asked)
        if operation is None:
            operation = self._create(request, operation_id, asked, authorization)
            status = "notRunning"  # even with --speed 0: only a poll shows progress
        else:
            status = operation.state(self._emulator.clock())
        return await _with_fault(fault, self._accepted(request, operation, status))

    def _existing(self, operation_id: str | None, asked: OperationRequest) -> Operation | None:
        operation = None if operation_id is None else self._known(operation_id)
        if operation is not None and operation.request != asked:
            raise invalid_payload(
                "The Operation-Id header matches an existing operation "
                "and the request is not identical to the prior request.",
                "Operation-Id",
            )
        return operation

    def _create(
        self, request: Request, operation_id: str | None, asked: OperationRequest, authorization: Authorization
    ) -> Operation:
        emulator = self._emulator
        self._remove_expired()
        operation = Operation.accept(
            operation_id or emulator.new_id(), asked, now=emulator.clock(), speed=emulator.options.speed
        )
        # The images first: after a crash in between, the repeated submit creates the operation.
        self._images.store(operation.id, asked.drawings(), operation.faults, operation.created + LIFETIME)
        self._operations[operation.id] = operation
        emulator.kept.put("operation", operation.id, operation.to_keep())
        details = emulator.stats.created(operation.id)
        details.submits = 1
        details.operation_id_header = request.headers.get("operation-id")
        details.authorization = authorization
        return operation

    def _accepted(self, request: Request, operation: Operation, status: str) -> Response:
        origin = base_url(request)
        if elsewhere := operation.faults.get("location-origin"):
            origin = elsewhere.argument
        elif "location-elsewhere" in operation.faults:
            origin = "http://localhost.invalid"
        path = _PATHS[self._emulator.options.location_path] + operation.id
        version = request.query_params["api-version"]
        return json_response(
            {"id": operation.id, "status": status},
            status=202,
            headers={"operation-location": f"{origin}{path}?api-version={version}"},
        )

    def _remove_expired(self) -> None:
        for operation_id in list(self._operations):
            if self._known(operation_id) is not None:
                break  # they are in the order of their age
            self._remove(operation_id)

    # Poll

    async def _poll(self, request: Request) -> Response:
        operation_id = _id_in_path(request)
        self._emulator.stats.polled(operation_id, _raw_target(request), self._emulator.clock())
        self._check(request)
        operation = self._find(operation_id)
        fault = self._emulator.fault_counts.next(operation.id, operation.faults, _POLL_FAULTS)
        if fault is None:
            return self._monitor(request, operation)
        if fault.word == "poll-drop":
            return Dropped()
        if fault.word == "poll-garbage":
            return Response('{"id": "', media_type="application/json")
        raise _refusal(fault, operation.faults)

    def _monitor(self, request: Request, operation: Operation) -> Response:
        now = self._emulator.clock()
        fault = self._status_fault(operation, now)
        if fault is not None:
            self._emulator.fault_counts.count(operation.id, fault)
        status = operation.state(now) if fault is None else fault.argument
        body: dict[str, Any] = {"id": operation.id, "status": status, "created": int(operation.created)}
        if status.lower() not in _TERMINAL:
            return json_response(body, headers=operation.retry_after(now))
        body["expires"] = int(self._expires(operation))
        if status.lower() == "succeeded":
            body["result"] = self._result(request, operation)
        elif status.lower() == "failed":
            body["error"] = (operation.error() or ServiceError(*_INTERNAL)).body()
        return json_response(body)

    def _status_fault(self, operation: Operation, now: float) -> Fault | None:
        """Return the next status word that the prompt asks for. A terminal one waits for the end."""
        ended = operation.state(now) in _TERMINAL
        for fault in operation.faults.all("status"):
            due = ended or fault.argument.lower() not in _TERMINAL
            if due and self._emulator.fault_counts.left(operation.id, fault):
                return fault
        return None

    def _result(self, request: Request, operation: Operation) -> dict[str, Any]:
        base, expires = base_url(request), self._expires(operation)
        filtered = {int(fault.argument) for fault in operation.faults.all("image-error")}
        result: dict[str, Any] = {
            "created": int(operation.finishes),
            "data": [
                {"error": content_filter().body()}
                if index in filtered
                else {"url": self._images.url(base, operation.id, index, expires)}
                for index in range(operation.request.n)
            ],
        }
        if "no-created" in operation.faults:
            del result["created"]
        return result

    def _expires(self, operation: Operation) -> float:
        return operation.finishes + self._emulator.options.image_lifetime

    # Delete

    async def _delete(self, request: Request) -> Response:
        operation_id = _id_in_path(request)
        self._emulator.stats.deletes += 1
        self._emulator.stats.operation(operation_id).deletes += 1
        self._check(request)
        operation = self._find(operation_id)
        now = self._emulator.clock()
        fault = self._status_fault(operation, now)
        status = operation.state(now) if fault is None else fault.argument
        if status.lower() not in _TERMINAL:
            message = f"The operation cannot be executed in the current resource's state ({status})."
            raise ServiceError(409, "unexpectedEntityState", message)
        self._remove(operation.id)
        return Response(status_code=204)

    def _remove(self, operation_id: str) -> None:
        del self._operations[operation_id]
        self._emulator.kept.remove("operation", operation_id)
        self._images.remove(operation_id)

    # All three

    def _check(self, request: Request) -> Authorization:
        authorization = authorize(request.headers, self._emulator.options.keys)
        if request.query_params.get("api-version") not in api_versions.OPERATIONS:
            raise resource_not_found()
        return authorization

    def _known(self, operation_id: str) -> Operation | None:
        operation = self._operations.get(operation_id)
        expired = operation is not None and self._emulator.clock() >= operation.created + LIFETIME
        return None if expired else operation

    def _find(self, operation_id: str) -> Operation:
        operation = self._known(operation_id)
        if operation is None:
            raise ServiceError(*_NOT_FOUND)
        return operation


def _id_in_path(request: Request) -> str:
    operation_id: str = request.path_params["id"]
    return operation_id.lower()


def _raw_target(request: Request) -> str:
    """Return path and query exactly as received."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _operation_id(request: Request) -> str | None:
    given = request.headers.get("operation-id")
    if given is None:
        return None
    if not _UUID.fullmatch(given):
        raise invalid_payload("The Operation-Id header must be a UUID.", "Operation-Id")
    return given.lower()


def _refusal(fault: Fault, faults: Faults) -> ServiceError:
    status, code, message = _REFUSALS[fault.word]
    asked = faults.get("retry-after")
    headers = {"retry-after": asked.argument if asked else "1"} if status == 429 else {}
    return ServiceError(status, code, message, headers=headers)


async def _with_fault(fault: Fault | None, accepted: Response) -> Response:
    """Spoil the response to a submit that has created its operation."""
    match fault:
        case Fault(word="submit-drop"):
            return Dropped()
        case Fault(word="submit-hang"):
            await asyncio.sleep(fault.seconds)
        case Fault(word="submit-no-location"):
            del accepted.headers["operation-location"]
        case _:
            pass
    return accepted
