"""A program for the retired API. The interpreter of requirements-openai.txt runs it.

Arguments: endpoint, key, prompt, n as JSON. Prints JSON: the image URLs, or the exception.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

# ruff: noqa: T201 - the output is its result

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import openai
from openai import api_requestor

SPEED_UP = 20  # as in conftest.py, which this interpreter cannot import


def fast_sleep(seconds: float) -> None:
    time.sleep(seconds / SPEED_UP)


api_requestor.time = SimpleNamespace(time=time.time, sleep=fast_sleep)
openai.api_type = "azure"
openai.api_version = "2023-06-01-preview"
openai.api_base, openai.api_key, prompt, n = sys.argv[1:]
try:
    answer = openai.Image.create(prompt=prompt, n=json.loads(n), size="512x512")
    print(json.dumps({"urls": [image["url"] for image in answer["data"]]}))
except openai.error.OpenAIError as error:
    print(json.dumps({"raised": type(error).__name__, "code": error.code, "status": error.http_status}))
