"""Everything that the app needs, on this machine: Azurite, the emulator of the image API, the Functions host.

``python -m local.stack`` (``make start``) runs it in the foreground; the demo and the end-to-end tests run it for the
length of a ``with`` block.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from imagegen.settings import Settings
from imagegen.urls import is_loopback
from local.azurite import Azurite, AzuriteError, azurite
from local.processes import Child, ChildError, python, start

ROOT = Path(__file__).parent.parent
KEY = "local-openai-key"
"""What the emulator takes as api-key: no secret."""
DEVELOPMENT_STORAGE = "UseDevelopmentStorage=true"
_READY = r"Ready: (http://\S+)"


@dataclass(frozen=True)
class Stack:
    """Where everything is."""

    base_url: str
    """Of the app, with the route prefix."""
    emulator_url: str | None
    """None where the settings name an image service of their own."""
    storage: Azurite | None
    """None where the settings name an account of their own."""
    host: Child
    emulator: Child | None


@contextlib.contextmanager
def emulator(*options: str, port: int = 0) -> Generator[tuple[str, Child]]:
    """The emulated image API: its URL and its process."""
    with start(python("local.openai", "--port", str(port), *options), ready=_READY, cwd=ROOT) as child:
        yield child.wait_for(_READY).group(1), child


@contextlib.contextmanager
def functions_host(env: Mapping[str, str], *, port: int = 0, root: Path = ROOT) -> Generator[tuple[str, Child]]:
    """The Functions host with this repository's app: its base URL and its process."""
    command = python("local.host", "--port", str(port), "--root", str(root))
    with start(command, ready=_READY, env=env, cwd=ROOT) as child:
        yield child.wait_for(_READY).group(1), child


EVERY_MODEL = json.dumps(
    [
        {"name": "operations", "api": "operations"},
        {"name": "gpt-image-2", "api": "images"},
        {"name": "gpt-image-1.5", "api": "images", "apiVersion": "2025-04-01-preview"},
        {"name": "dall-e-3", "api": "images", "apiVersion": "2024-10-21"},
        {"name": "FLUX.2-pro", "api": "flux"},
        {"name": "MAI-Image-2.5", "api": "mai"},
    ]
)
"""IMAGE_DEPLOYMENTS of one deployment for each API that there is; the emulator speaks them all."""


def app_environment(connection_string: str, endpoint: str, **more: str) -> dict[str, str]:
    """Every setting of the app, so that none comes from this shell or from local.settings.json."""
    unset = {field.alias: "" for field in Settings.model_fields.values() if field.alias}
    return unset | {
        "AzureWebJobsStorage": connection_string,
        "AZURE_OPENAI_ENDPOINT": endpoint,
        "AZURE_OPENAI_API_KEY": KEY,
        "AZURE_OPENAI_API": "operations",
        "POLL_SCHEDULE": "*/5 * * * * *",
        "PYTHON_THREADPOOL_THREAD_COUNT": "16",
        **more,
    }


@contextlib.contextmanager
def isolated_stack(*emulator_options: str, **settings: str) -> Generator[Stack]:
    """All three on free ports, in memory, untouched by this machine's settings."""
    with (
        azurite() as storage,
        emulator(*emulator_options) as (emulator_url, emulator_child),
        functions_host(app_environment(storage.connection_string, emulator_url, **settings)) as (base_url, host),
    ):
        yield Stack(base_url, emulator_url, storage, host, emulator_child)


@contextlib.contextmanager
def developer_stack(values: Mapping[str, str], *, port: int) -> Generator[Stack]:
    """What ``values`` (local.settings.json) ask for, on the usual ports where these are free.

    Storage and image service that are this machine's own are started; others are used as they are.
    """
    with contextlib.ExitStack() as stack:
        env = dict(values)
        storage = emulator_url = emulator_child = None
        if values.get("AzureWebJobsStorage", "") in ("", DEVELOPMENT_STORAGE):
            storage = stack.enter_context(
                azurite(
                    ROOT / ".local" / "azurite",
                    blob_port=free_port(10000),
                    queue_port=free_port(10001),
                    table_port=free_port(10002),
                )
            )
            env["AzureWebJobsStorage"] = storage.connection_string
        endpoint = urlsplit(values.get("AZURE_OPENAI_ENDPOINT", ""))
        if not endpoint.hostname or is_loopback(endpoint.hostname):
            emulator_url, emulator_child = stack.enter_context(emulator(port=free_port(endpoint.port or 7072)))
            env["AZURE_OPENAI_ENDPOINT"] = emulator_url
        base_url, host = stack.enter_context(functions_host(env, port=free_port(port)))
        yield Stack(base_url, emulator_url, storage, host, emulator_child)


def stop_on_sigterm() -> None:
    """A SIGTERM ends this process as Ctrl-C does: with its children. Both, also where a script started it with &."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def free_port(usual: int) -> int:
    """This port if nobody listens there, else 0: any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual


def local_settings() -> tuple[Path, dict[str, str]]:
    """The values of local.settings.json, of the example where there is none; this shell's environment wins."""
    path = ROOT / "local.settings.json"
    if not path.exists():
        path = ROOT / "local.settings.json.example"
    values: dict[str, str] = json.loads(path.read_text())["Values"]
    return path, {name: os.environ.get(name, value) for name, value in values.items()}


def main() -> int:
    """Run it all until a signal comes."""
    stop_on_sigterm()
    try:
        path, values = local_settings()
        with developer_stack(values, port=int(os.environ.get("PORT") or 7071)) as stack:
            print(_GREETING.format(settings=path.name, **_shown(stack)), flush=True)
            for line in stack.host.lines():
                print(line, end="", flush=True)
            print("The Functions host stopped.", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (AzuriteError, ChildError, json.JSONDecodeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _shown(stack: Stack) -> dict[str, str]:
    return {
        "base": stack.base_url,
        "emulator": stack.emulator_url or "as the settings say",
        "storage": stack.storage.blob_endpoint if stack.storage else "as the settings say",
    }


_GREETING = """
The app         {base}   (settings: {settings})
The image API   {emulator}
Blob Storage    {storage}

Start a generation (-i shows the headers that a workflow follows):

  curl -i {base}/generations -H 'Content-Type: application/json' -d '{{"prompt": "a lighthouse in fog"}}'

Then GET what Location names until it is no longer 202:

  curl -i '<Location>'

Ctrl-C stops everything.
"""

if __name__ == "__main__":
    sys.exit(main())
