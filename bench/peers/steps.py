"""What every contender has to do, with plain requests: the calls of the image service and the writes to storage.

It imports only requests and the standard library, because the peers run in a virtual environment of their own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

FIRST_POLL = 1.0
"""Seconds from the submit to the first poll, as in the app. Then Retry-After counts."""
CONNECTIONS = 64
_VERSION = "2021-12-02"


@dataclass(frozen=True)
class Task:
    """What a contender gets, as JSON on its standard input."""

    count: int
    """Generations, which all start at once."""
    prompt: str
    upstream_seconds: float
    """Time that an operation takes."""
    endpoint: str
    """Of the image service."""
    api_key: str
    blob_endpoint: str
    queue_endpoint: str
    account: str
    account_key: str
    container: str
    direct: bool = False
    """Whether the model answers with the image."""


class Clock:
    """Times of each generation, by its id. `perf_counter` throughout."""

    def __init__(self) -> None:
        self.accepted: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self._began = time.perf_counter()
        self._cpu = time.process_time()

    def report(self, task: Task) -> str:
        """The result, as JSON. The lag counts from the first moment at which a poll could have found the result."""
        seconds = time.perf_counter() - self._began
        ready = max(task.upstream_seconds, FIRST_POLL)
        lags = [self.done[one] - accepted - ready for one, accepted in self.accepted.items()]
        assert len(self.done) == task.count, f"{len(self.done)} of {task.count} ended"
        return json.dumps({"seconds": seconds, "cpu": time.process_time() - self._cpu, "lags": lags})


class Steps:
    """The calls. Thread-safe."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._key = base64.b64decode(task.account_key)
        self._upstream, self._storage = _session(), _session()

    # The image service

    def submit(self, generation_id: str) -> str:
        """Return the operation-location."""
        response = self._upstream.post(
            f"{self._task.endpoint}/openai/images/generations:submit?api-version=2023-06-01-preview",
            json={"prompt": self._task.prompt, "n": 1, "size": "256x256"},
            headers={"api-key": self._task.api_key, "Operation-Id": generation_id},
            timeout=30,
        )
        response.raise_for_status()
        return response.headers["operation-location"]

    def poll(self, location: str) -> tuple[str | None, float]:
        """Return the URL of the image; while there is none, None and the seconds until the next poll."""
        response = self._upstream.get(location, headers={"api-key": self._task.api_key}, timeout=30)
        response.raise_for_status()
        operation = response.json()
        if operation["status"] == "succeeded":
            return operation["result"]["data"][0]["url"], 0
        return None, float(response.headers.get("retry-after", FIRST_POLL))

    def fetch(self, url: str) -> bytes:
        response = self._upstream.get(url, timeout=30)
        response.raise_for_status()
        return response.content

    def call(self) -> bytes:
        """A direct call: the image."""
        response = self._upstream.post(
            f"{self._task.endpoint}/providers/blackforestlabs/v1/flux-2-pro?api-version=preview",
            json={"model": "FLUX.2-pro", "prompt": self._task.prompt, "width": 256, "height": 256},
            headers={"Authorization": f"Bearer {self._task.api_key}"},
            timeout=300,
        )
        response.raise_for_status()
        return base64.b64decode(response.json()["data"][0]["b64_json"])

    # Storage

    def write(self, name: str, content: bytes, *, content_type: str = "application/json", **headers: str) -> str:
        """Write a blob. Return its ETag."""
        if content_type == "image/png":
            headers["x-ms-blob-content-md5"] = base64.b64encode(hashlib.md5(content).digest()).decode()
            headers["x-ms-meta-sha256"] = hashlib.sha256(content).hexdigest()
        headers |= {"x-ms-blob-type": "BlockBlob", "Content-Type": content_type}
        return self._send("PUT", name, content, headers).headers["ETag"]

    def delete(self, name: str, etag: str) -> None:
        self._send("DELETE", name, b"", {"If-Match": etag})

    def _send(self, method: str, name: str, content: bytes, headers: dict[str, str]) -> requests.Response:
        url = f"{self._task.blob_endpoint}/{self._task.container}/{name}"
        headers |= {"x-ms-version": _VERSION, "x-ms-date": formatdate(usegmt=True)}
        headers["Authorization"] = self._signature(method, urlsplit(url).path, content, headers)
        response = self._storage.request(method, url, data=content, headers=headers, timeout=30)
        response.raise_for_status()
        return response

    def _signature(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> str:
        """Shared Key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
        conditions = ["", headers.get("If-Match", ""), headers.get("If-None-Match", ""), "", ""]
        plain = ["", "", str(len(content) or ""), "", headers.get("Content-Type", ""), "", *conditions]
        own = [f"{name}:{value}" for name, value in sorted(headers.items()) if name.startswith("x-ms-")]
        text = "\n".join([method, *plain, *own, f"/{self._task.account}{path}"])
        signed = hmac.digest(self._key, text.encode(), "sha256")
        return f"SharedKey {self._task.account}:{base64.b64encode(signed).decode()}"


def _session() -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def new_id() -> str:
    return str(uuid.uuid4())


def record(generation_id: str, prompt: str, **more: Any) -> bytes:
    """The JSON of a record. It has about the length of the app's."""
    request = {"prompt": prompt, "n": 1, "size": "256x256", "model": "model"}
    fields = {"id": generation_id, "token": "t" * 22, "created": formatdate(), "deadline": formatdate()}
    return json.dumps(fields | {"request": request, "metadata": {}} | more).encode()
