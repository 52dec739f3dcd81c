"""Functions that log, for the tests of local.host."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
logging.getLogger("at.import").warning("logged at import")


@app.route("sync")
def in_function(req: func.HttpRequest) -> str:
    logging.getLogger("sync").info("logged in a function")
    logging.getLogger("azure.core").info("logged by an SDK in a function")
    return ""


@app.route("async")
async def in_async_function(req: func.HttpRequest) -> str:
    logging.getLogger("async").info("logged in an async function")
    return ""


@app.route("threads")
def in_threads(req: func.HttpRequest) -> str:
    _run(threading.Thread(target=logging.getLogger("bare.thread").warning, args=("logged without a context",)))
    log = logging.getLogger("thread").warning
    _run(threading.Thread(target=copy_context().run, args=(log, "logged with a context")))
    return ""


def _run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()
