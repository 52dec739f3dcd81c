"""What schemathesis cannot know: generations that exist, and one that does not.

Run by the interpreter of requirements-schemathesis.txt. Environment: GENERATIONS, a JSON list of ``[id, token]``, and
ANSWERS, a file that takes a line ``operationId status`` for each answer, so that the test sees that no route was only
asked for what is not there.
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
"""These end what they are given, so each call gets one of its own."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Name a generation that exists, except where the case is about a wrong id or a wrong query."""
    name = case.operation.definition.raw["operationId"]
    if name == "submitOldGeneration" and not case.meta.is_negative_at(ParameterLocation.HEADER):
        # It is generated once for many bodies, and then rightly refused.
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
    """Write down what was answered."""
    with Path(os.environ["ANSWERS"]).open("a") as answers:
        answers.write(f"{case.operation.definition.raw['operationId']} {response.status_code}\n")
