"""What ``answer`` adds to the result of every route."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from imagegen.errors import FieldProblem, RequestError, StorageUnavailableError
from imagegen.generation import Generation
from imagegen.settings import SettingsError
from imagegen.web.http import HttpError, Request, Response, answer
from tests.app.generations import ID, PROMPT, TOKEN

SECRET = f"{PROMPT} {TOKEN}"


def ask(handle: Callable[[Request], Response], **headers: str) -> Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(Request("GET", "http://localhost/api/x", sent, {"token": TOKEN}, {}, PROMPT.encode()), handle)


def raising(error: Exception) -> Callable[[Request], Response]:
    def handle(_: Request) -> Response:
        raise error

    return handle


def test_every_answer_has_a_request_id_and_no_store() -> None:
    first, second = (ask(lambda _: Response(200, {"a": "\u00fc"})) for _ in range(2))
    assert first.headers["x-ms-request-id"] != second.headers["x-ms-request-id"]
    assert first.headers["Cache-Control"] == "no-store"
    assert first.content() == '{"a": "\u00fc"}'.encode()


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (HttpError(404, "notFound", "m"), 404, "notFound", None),
        (HttpError(429, "tooManyRequests", "m", retry_after=7), 429, "tooManyRequests", "7"),
        (StorageUnavailableError(SECRET), 503, "storageUnavailable", "30"),
        (SettingsError("POLL_SCHEDULE: is missing"), 503, "configurationInvalid", "30"),
        (RuntimeError(SECRET), 500, "internalError", None),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET), 500, "internalError", None),
        (KeyError(SECRET), 500, "internalError", None),
    ],
)
def test_error_has_its_code_in_body_and_header_and_no_secret(
    error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    response = ask(raising(error))
    body = json.loads(response.content())
    assert (response.status, body["error"]["code"], response.headers["x-ms-error-code"]) == (status, code, code)
    assert response.headers.get("Retry-After") == retry_after
    assert response.headers["x-ms-request-id"]
    assert PROMPT not in str(body)
    assert TOKEN not in str(body)


def test_unexpected_error_is_logged_with_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        response = ask(raising(ZeroDivisionError("x")))
    assert f"request.failed x_ms_request_id={response.headers['x-ms-request-id']}" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_unreadable_record_is_not_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    record = json.dumps({"id": ID, "token": [TOKEN], "request": {"prompt": [PROMPT]}})
    with caplog.at_level(logging.INFO):
        response = ask(lambda _: Response(200, Generation.model_validate_json(record).to_json()))
    assert response.status == 500
    assert "ValidationError" in caplog.text
    assert PROMPT not in caplog.text
    assert TOKEN not in caplog.text


def test_every_problem_is_listed_and_the_first_is_the_target() -> None:
    problems = [FieldProblem("a", "is wrong"), FieldProblem("b", "is missing")]
    body = json.loads(ask(raising(RequestError.for_fields(problems))).content())
    assert body == {
        "error": {
            "code": "invalidPayload",
            "message": "a: is wrong. b: is missing.",
            "target": "a",
            "details": [
                {"code": "invalidPayload", "message": "is wrong", "target": "a"},
                {"code": "invalidPayload", "message": "is missing", "target": "b"},
            ],
        }
    }


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        ("c-1", "c-1"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("", None),
        ("two words", None),
        ("a\r\nSet-Cookie: b", None),
        ("\u00fc", None),
    ],
)
def test_client_request_id_is_returned_if_it_is_safe(sent: str, returned: str | None) -> None:
    response = ask(lambda _: Response(204), x_ms_client_request_id=sent)
    assert response.headers.get("x-ms-client-request-id") == returned


def test_every_answer_logs_one_line_with_the_ids_of_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = {"x_ms_workflow_run_id": "run-1", "x_ms_action_tracking_id": "action\n1", "x_ms_client_request_id": "c-1"}
    with caplog.at_level(logging.DEBUG):
        response = ask(raising(HttpError(404, "notFound", "m")), **ids)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "request.answered status=404 code=notFound "
            f"x_ms_request_id={response.headers['x-ms-request-id']} x_ms_client_request_id=c-1 caller=run-1"
        )
    ]
