"""The whole app on this machine: Azurite, the emulator of the image APIs, the Functions host.

The demo and the end-to-end tests run it during a ``with`` block; `local.start` is ``make start``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.settings import Settings
from local.azurite import Azurite, azurite
from local.processes import Child, python, start

ROOT = Path(__file__).parent.parent
KEY = "local-openai-key"
"""The api-key of the emulator, which is not a secret."""
FUNCTION_KEY = "local-function-key"
"""The function key with `KEYS=1`: a constant for development, not a secret. Azure generates a random one."""
_READY = r"Ready: (http://\S+)"
_CORE_TOOLS_READY = r"start_generation: .*(http://\S+)/generations"


@dataclass(frozen=True)
class Stack:
    """The addresses and processes."""

    base_url: str
    """URL of the app, with the route prefix."""
    emulator_url: str | None
    """None if the settings name another image service."""
    storage: Azurite | None
    """None if the settings name a storage account."""
    host: Child
    emulator: Child | None
    function_key: str | None = None
    """None if the host requires no key."""


@contextlib.contextmanager
def emulator(*options: str, port: int = 0) -> Generator[tuple[str, Child]]:
    """Run the emulator of the image APIs. Yields its URL and its process."""
    command = python("local.emulator", "--port", str(port), *options)
    with start(command, ready=_READY, name="The emulator of the image APIs", cwd=ROOT) as child:
        yield child.wait_for(_READY).group(1), child


@contextlib.contextmanager
def functions_host(
    env: Mapping[str, str], *, port: int = 0, root: Path = ROOT, function_key: str | None = None
) -> Generator[tuple[str, Child]]:
    """Run the Functions host with the app in `root`. Yields the base URL and the process.

    The variable FUNCTIONS_HOST runs another host: the path of `func` of Azure Functions Core Tools. It checks no keys.
    """
    command, ready, timeout, folder = python("local.host", "--port", str(port), "--root", str(root)), _READY, 30, ROOT
    if function_key:
        command += ["--function-key", function_key]
    if core_tools := os.environ.get("FUNCTIONS_HOST"):
        # Core Tools take no port 0, and download the extension bundle when they start for the first time.
        command = [core_tools, "start", "--port", str(port or _any_port())]
        ready, timeout, folder = _CORE_TOOLS_READY, 180, root
    with start(command, ready=ready, name="The Functions host", env=env, cwd=folder, timeout=timeout) as child:
        yield child.wait_for(ready).group(1), child


EVERY_MODEL = json.dumps(
    [
        {"name": "gpt-image-2", "api": "images"},
        {"name": "gpt-image-1.5", "api": "images", "apiVersion": "2025-04-01-preview"},
        {"name": "dall-e-3", "api": "images", "apiVersion": "2024-10-21"},
        {"name": "FLUX.2-pro", "api": "flux"},
        {"name": "MAI-Image-2.5", "api": "mai"},
        {"name": "operations", "api": "operations"},
    ]
)
"""IMAGE_DEPLOYMENTS with a deployment for each API. The emulator serves them all. The first is the default."""


def app_environment(connection_string: str, endpoint: str, **more: str) -> dict[str, str]:
    """Return a value for every setting, so that the shell and local.settings.json have no influence."""
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
    """Run all three on free ports and in memory, without the settings of this machine."""
    with (
        azurite() as storage,
        emulator(*emulator_options) as (emulator_url, emulator_child),
        functions_host(app_environment(storage.connection_string, emulator_url, **settings)) as (base_url, host),
    ):
        yield Stack(base_url, emulator_url, storage, host, emulator_child)


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
