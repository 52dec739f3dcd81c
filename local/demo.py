"""``make demo``: run a prompt through the real app and save the image."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.markup import escape

from local.azurite import AzuriteError
from local.processes import ChildError
from local.signals import stop_on_sigterm
from local.stack import EVERY_MODEL, isolated_stack

DEFAULT_PROMPT = "a lighthouse in fog"
OUTPUT = Path("demo-output")
DEFAULT_MODEL = "gpt-image-2"
_TIMEOUT_SECONDS = 120
_TERMINAL = {"succeeded", "failed", "canceled"}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True, highlight=False)
    stop_on_sigterm()
    started = time.monotonic()
    try:
        # Report invalid arguments before the app is started.
        body = _body(arguments)
        _make_output_folder()
        with (
            console.status("Starting Azurite, the emulator of the image APIs and the Functions host") as status,
            isolated_stack(IMAGE_DEPLOYMENTS=EVERY_MODEL) as stack,
        ):
            monitor = _generate(stack.base_url, body, console, status.update)
            paths = _download(monitor)
    except KeyboardInterrupt:
        return 130
    except (AzuriteError, ChildError, DemoError, OSError) as error:
        console.print(f"[red]The demo failed:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    if paths:
        print(json.dumps(monitor, indent=2, ensure_ascii=False))
    for problem in _problems(monitor):
        console.print(f"[red]Refused or failed:[/] {escape(problem)}", soft_wrap=True)
    for path in paths:
        print(f"Saved: {path}", flush=True)
    seconds = f"{time.monotonic() - started:.0f} s"
    if paths:
        console.print(f"\n[green]Done[/] in {seconds}. The demo's storage has stopped: the URLs above no longer work.")
    else:
        console.print(f"\n[yellow]No image[/] after {seconds}. The line above says why.")
    console.print(_NEXT, markup=False, soft_wrap=True)
    return 0 if paths else 1


class DemoError(Exception):
    """Invalid arguments, or an unexpected answer of the app."""


def _make_output_folder() -> None:
    try:
        OUTPUT.mkdir(exist_ok=True)
    except FileExistsError:
        raise DemoError(f"{OUTPUT} is not a folder, but the demo saves images there: rename or remove it") from None


def _generate(base: str, body: dict[str, Any], console: Console, show: Callable[[str], None]) -> dict[str, Any]:
    """Start a generation and follow Location as Logic Apps does. Returns the last body."""
    answer = requests.post(f"{base}/generations", json=body, timeout=60)
    if answer.status_code != 202:
        raise DemoError(_sentence(answer.json()["error"]))
    console.print(f"POST /generations → 202, id {answer.json()['id']}")
    began = time.monotonic()
    while answer.status_code == 202 and time.monotonic() - began < _TIMEOUT_SECONDS:
        show(f"{answer.json()['status']}, {time.monotonic() - began:.0f} s")
        # Polling costs nothing here, so the demo polls more often than Retry-After asks for.
        time.sleep(min(1, int(answer.headers["Retry-After"])))
        answer = requests.get(answer.headers["Location"], timeout=60)
    console.print(f"GET …/result → {answer.status_code} after {time.monotonic() - began:.0f} s")
    return answer.json()


def _problems(monitor: dict[str, Any]) -> list[str]:
    """Return the errors of the generation and of its images, as sentences."""
    if monitor["status"] not in _TERMINAL:
        return [f"The generation was still {monitor['status']} after {_TIMEOUT_SECONDS} s."]
    images = monitor.get("result", {}).get("data", [])
    return [_sentence(part["error"]) for part in (monitor, *images) if part.get("error")]


def _sentence(error: dict[str, Any]) -> str:
    """Return the message, the fields that are wrong, and the code."""
    fields = [f"{detail.get('target', 'body')}: {detail['message']}" for detail in error.get("details", [])]
    return f"{' '.join(fields) or error['message']} ({error['code']})"


def _download(monitor: dict[str, Any]) -> list[Path]:
    """Save each image from its SAS URL."""
    paths: list[Path] = []
    for image in monitor.get("result", {}).get("data", []):
        if "url" in image:
            answer = requests.get(image["url"], timeout=60)
            answer.raise_for_status()
            path = OUTPUT / image["blob"].replace("/", "-")
            path.write_bytes(answer.content)
            paths.append(path.resolve())
    return paths


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.prompt.strip():
        raise DemoError("PROMPT is blank: write a prompt, or leave PROMPT out")
    body = {"prompt": arguments.prompt, "n": _number(arguments.n), "size": arguments.size, "model": arguments.model}
    return {name: value for name, value in body.items() if value is not None}


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise DemoError(f"N must be a number, not {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    # The defaults come from the environment, so that make does not have to quote the prompt for a shell.
    parser.add_argument("--prompt", default=os.environ.get("PROMPT", DEFAULT_PROMPT))
    parser.add_argument("--n", default=os.environ.get("N") or None)
    parser.add_argument("--model", default=os.environ.get("MODEL") or DEFAULT_MODEL)
    parser.add_argument("--size", default=os.environ.get("SIZE") or None)
    return parser


_NEXT = """Next steps:
  make demo PROMPT="a lighthouse in a storm" N=2 SIZE=1536x1024
  make demo MODEL=FLUX.2-pro                           also gpt-image-1.5, dall-e-3, MAI-Image-2.5, operations
  make demo PROMPT="a lighthouse [contentFilter]"      a refused prompt: more faults in docs/emulator.md
  make start                                           the app in the foreground, with curl commands to copy"""

if __name__ == "__main__":
    sys.exit(main())
