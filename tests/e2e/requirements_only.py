"""Runs each kind of trigger of function_app.py once. test_requirements.py starts it where only requirements.txt is."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import azure.functions as func
from azure.storage.queue import QueueClient


def main() -> None:
    for absent in ("pytest", "starlette", "azure_functions_runtime"):
        if importlib.util.find_spec(absent):
            sys.exit(f"{absent} is installed, but not in requirements.txt")
    app = importlib.import_module("function_app").app
    functions = {one.get_function_name(): one.get_user_function() for one in app.get_functions()}
    polled = start(functions["start_generation"], "operations")
    direct = start(functions["start_generation"], "gpt-image-2")
    wait_for(polled, functions, lambda: functions["poll_operations"](SimpleNamespace(past_due=False)))
    wait_for(direct, functions, lambda: receive(functions["advance_generations"]))
    for name in ("get_health", "get_openapi", "list_models"):
        answer = functions[name](request("GET", name))
        print(name, answer.status_code)  # noqa: T201
    clients = importlib.import_module("imagegen.storage.clients")
    # Imported only by an app that signs in with an identity, as in Azure.
    credential = clients.storage_credential(SimpleNamespace(storage_client_id=None))
    print(type(credential).__name__)  # noqa: T201


def start(function: Any, model: str) -> dict[str, Any]:
    body = json.dumps({"prompt": "a lighthouse", "model": model}).encode()
    answer = function(request("POST", "generations", headers={"content-type": "application/json"}, body=body))
    return json.loads(answer.get_body()) | {"model": model, "token": answer.headers["Location"].partition("token=")[2]}


def wait_for(started: dict[str, Any], functions: dict[str, Any], work: Any) -> None:
    deadline = time.monotonic() + 60
    status = 202
    while status == 202 and time.monotonic() < deadline:
        work()
        generation = {"route_params": {"id": started["id"]}, "params": {"token": started["token"]}}
        status = functions["get_generation_result"](request("GET", "result", **generation)).status_code
    print(started["model"], status)  # noqa: T201


def receive(function: Any) -> None:
    """Invoke a function with the messages of its queue, as the host does."""
    connection = os.environ["AzureWebJobsStorage"]  # noqa: SIM112 - Azure's name
    with QueueClient.from_connection_string(connection, "generations-due") as queue:
        for message in queue.receive_messages(max_messages=8):
            queue.delete_message(message)
            function(func.QueueMessage(body=base64.b64decode(message.content)))
    time.sleep(0.1)


def request(method: str, path: str, **parts: Any) -> func.HttpRequest:
    parts = {"body": b"", "headers": {}, **parts}
    return func.HttpRequest(method, f"http://127.0.0.1/api/{path}", **parts)


if __name__ == "__main__":
    main()
