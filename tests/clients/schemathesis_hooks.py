"""Hooks that put the ids of existing generations into the requests of schemathesis.

The interpreter of requirements-schemathesis.txt runs them. Environment: BASE, the URL of the app; GENERATIONS, a JSON
list of ``[id, token]``; ANSWERS, a file to which each answer adds a line ``operationId status``. The test reads it to
check that each route got more than requests for unknown ids.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import json
import os
import uuid
from itertools import cycle
from pathlib import Path
from typing import Any

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation

_KNOWN = json.loads(os.environ["GENERATIONS"])
_NEXT = {name: cycle(_KNOWN) for name in ("getGeneration", "getGenerationResult", "getOldOperation")}
_CONSUMED = {"cancelGeneration", "deleteGeneration", "deleteOldOperation"}
"""These end the generation, so each call gets a new one."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Insert an existing generation, unless the case tests a wrong id or a wrong query."""
    name = case.operation.definition.raw["operationId"]
    if name == "submitOldGeneration" and not case.meta.is_negative_at(ParameterLocation.HEADER):
        # schemathesis reuses one value for many bodies, which the app refuses.
        case.headers = {**(case.headers or {}), "Operation-Id": str(uuid.uuid4())}
    wrong = any(case.meta.is_negative_at(where) for where in (ParameterLocation.PATH, ParameterLocation.QUERY))
    if "{id}" not in case.path or wrong or case.method != case.operation.method.upper():
        return
    if name in _CONSUMED:
        body = {"prompt": "a lighthouse [never]"}
        made = requests.post(f"{os.environ['BASE']}/generations", json=body, timeout=30).json()
        generation_id, token = made["id"], made["urls"]["self"].partition("token=")[2]
    else:
        generation_id, token = next(_NEXT[name])
    case.path_parameters = {**case.path_parameters, "id": generation_id}
    if "/openai/" not in case.path:
        case.query = {**(case.query or {}), "token": token}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Record the status."""
    with Path(os.environ["ANSWERS"]).open("a") as answers:
        answers.write(f"{case.operation.definition.raw['operationId']} {response.status_code}\n")
