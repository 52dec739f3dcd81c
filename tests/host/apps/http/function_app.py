"""HTTP functions, for the tests of local.host. They need no storage."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import logging
import threading
import time

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
log = logging.getLogger("http")
both = threading.Barrier(2, timeout=5)


@app.route("echo/{id}")
def echo(req: func.HttpRequest) -> func.HttpResponse:
    seen = {
        "method": req.method,
        "url": req.url,
        "route": dict(req.route_params),
        "query": dict(req.params),
        "headers": dict(req.headers),
        "body": req.get_body().decode("latin-1"),
    }
    return func.HttpResponse(json.dumps(seen), mimetype="application/json")


@app.route("echo/literal")
def a_literal(req: func.HttpRequest) -> str:
    return "literal"


@app.route("openai/images/generations:submit", methods=["POST"])
def submit(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(status_code=202, headers={"operation-location": "https://there", "Retry-After": "1"})


@app.route("things/{id}", methods=["GET"])
def thing(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.route_params["id"])


@app.route()
def unnamed(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("by name")


@app.route("fails")
def fails(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("the reason it failed")


@app.route("locked", auth_level=func.AuthLevel.FUNCTION)
def locked(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("unlocked")


class RefusedError(Exception):
    pass


@app.route("refuses")
def refuses(req: func.HttpRequest) -> func.HttpResponse:
    raise RefusedError("the reason it refused")


@app.route("cookies")
def cookies(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("one", headers={"Set-Cookie": "a=1"})


@app.route("bytes", methods=["GET"])
def binary(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(bytes(range(256)), mimetype="application/octet-stream")


@app.route("meet")
def meet(req: func.HttpRequest) -> func.HttpResponse:
    """Return when two calls run at the same time."""
    both.wait()
    return func.HttpResponse("met")


@app.route("slow/{seconds}")
def slow(req: func.HttpRequest) -> func.HttpResponse:
    log.info("slow started")
    time.sleep(float(req.route_params["seconds"]))
    return func.HttpResponse("slept")
