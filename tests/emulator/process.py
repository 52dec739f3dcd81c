"""The emulator as a child process, and a client for it."""

import json
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parents[2]
KEY = "key-of-the-tests"
VERSION = "2023-06-01-preview"


@dataclass
class Emulator:
    base: str
    process: subprocess.Popen[str]
    log: Path
    session: requests.Session

    def submit(
        self,
        body: object,
        *,
        headers: dict[str, str | None] | None = None,
        version: str | None = VERSION,
        timeout: float = 20,
    ) -> requests.Response:
        """POST an operation. A header of None is not sent."""
        sent = {"api-key": KEY, "content-type": "application/json", **(headers or {})}
        return self.session.post(
            f"{self.base}/openai/images/generations:submit",
            data=body if isinstance(body, bytes) else json.dumps(body),
            params={} if version is None else {"api-version": version},
            headers={name: value for name, value in sent.items() if value is not None},
            timeout=timeout,
        )

    def start(self, prompt: str, **fields: object) -> str:
        """Return the operation-location of a new operation."""
        answer = self.submit({"prompt": prompt, "size": "256x256", **fields})
        assert answer.status_code == 202, answer.text
        return answer.headers["operation-location"]

    def get(self, url: str) -> requests.Response:
        return self.session.get(url, headers={"api-key": KEY}, timeout=20)

    def delete(self, url: str) -> requests.Response:
        return self.session.delete(url, headers={"api-key": KEY}, timeout=20)

    def image(self, url: str, **headers: str) -> requests.Response:
        return self.session.get(url, headers=headers, allow_redirects=False, timeout=20)

    def image_url(self, prompt: str) -> str:
        return self.get(self.start(prompt)).json()["result"]["data"][0]["url"]

    def stats(self) -> dict[str, Any]:
        return self.session.get(f"{self.base}/_emulator/stats", timeout=20).json()

    def reset(self) -> None:
        assert self.session.post(f"{self.base}/_emulator/reset", timeout=20).status_code == 204


@contextmanager
def running(log: Path, *arguments: str) -> Generator[Emulator]:
    """Run an emulator whose standard error goes to ``log``."""
    command = [sys.executable, "-m", "local.emulator", "--port", "0", "--key", KEY, "second-key", *arguments]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        requests.Session() as session,
    ):
        assert process.stdout
        ready = process.stdout.readline()
        try:
            assert re.fullmatch(r"Ready: http://127\.0\.0\.1:\d+\n", ready), log.read_text()
            yield Emulator(ready.removeprefix("Ready: ").strip(), process, log, session)
        finally:
            process.kill()


def statuses(tries: int, call: Any, *arguments: object) -> Iterator[int | str]:
    """Repeat a call. Yields each status, or "lost" if there is no complete response."""
    for _ in range(tries):
        try:
            yield call(*arguments).status_code
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            yield "lost"
