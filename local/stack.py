"""The whole app on this machine: Azurite, the emulator of the image APIs, the Functions host.

``python -m local start`` (``make start``) runs it in the foreground. The demo and the end-to-end tests run it during a
``with`` block.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.settings import Settings
from local import settings as local_settings
from local.azurite import Azurite, AzuriteError, azurite
from local.processes import Child, ChildError, python, start
from local.settings import LocalSettings, SettingsError
from local.signals import stop_on_sigterm

ROOT = Path(__file__).parent.parent
KEY = "local-openai-key"
"""The api-key of the emulator, which is not a secret."""
FUNCTION_KEY = "local-function-key"
"""The function key with `KEYS=1`: a constant for development, not a secret. Azure generates a random one."""
_LOCAL = ROOT / ".local"
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
        {"name": "operations", "api": "operations"},
        {"name": "gpt-image-2", "api": "images"},
        {"name": "gpt-image-1.5", "api": "images", "apiVersion": "2025-04-01-preview"},
        {"name": "dall-e-3", "api": "images", "apiVersion": "2024-10-21"},
        {"name": "FLUX.2-pro", "api": "flux"},
        {"name": "MAI-Image-2.5", "api": "mai"},
    ]
)
"""IMAGE_DEPLOYMENTS with a deployment for each API. The emulator serves them all."""


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


@contextlib.contextmanager
def developer_stack(settings: LocalSettings, *, port: int, function_key: str | None = None) -> Generator[Stack]:
    """Run the app with ``settings``, on the usual ports if they are free.

    Azurite and the emulator start only if the settings do not name another storage account or image service.
    """
    with contextlib.ExitStack() as stack:
        env = dict(settings.values)
        storage = emulator_url = emulator_child = None
        emulator_port = settings.emulator_port  # raises for an invalid setting, before anything is started
        if settings.wants_azurite:
            stack.enter_context(exclusive(_LOCAL / "azurite.lock"))
            storage = stack.enter_context(
                azurite(
                    _LOCAL / "azurite",
                    blob_port=free_port(10000),
                    queue_port=free_port(10001),
                    table_port=free_port(10002),
                )
            )
            env["AzureWebJobsStorage"] = storage.connection_string
        if emulator_port is not None:
            emulator_url, emulator_child = stack.enter_context(emulator(port=free_port(emulator_port)))
            env["AZURE_OPENAI_ENDPOINT"] = emulator_url
            if not settings.names_deployments:
                env["IMAGE_DEPLOYMENTS"] = EVERY_MODEL
        base_url, host = stack.enter_context(functions_host(env, port=free_port(port), function_key=function_key))
        yield Stack(base_url, emulator_url, storage, host, emulator_child, function_key)


class AlreadyRunningError(Exception):
    """Another ``make start`` runs in this folder."""


@contextlib.contextmanager
def exclusive(lock: Path) -> Generator[None]:
    """Hold the lock of a file: two Azurites would overwrite each other's data in one folder.

    The kernel releases the lock when this process ends in any way. A file that remains is not a lock.

    Raises
    ------
    AlreadyRunningError
        Another process holds the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise AlreadyRunningError(
                f"make start is already running (pid {pid}) with the data in {lock.with_suffix('')}: "
                f"stop it with Ctrl-C in its terminal, or with `kill {pid}`"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def free_port(usual: int) -> int:
    """Return this port if it is free, else 0, which means any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(arguments: Sequence[str] = ()) -> int:  # noqa: ARG001 - the signature of every command
    """Run the app until a signal arrives."""
    stop_on_sigterm()
    try:
        port = local_settings.port(os.environ, 7071)
        function_key = FUNCTION_KEY if local_settings.keys(os.environ) else None
        asked = local_settings.read(ROOT, os.environ)
        with developer_stack(asked, port=port, function_key=function_key) as stack:
            for line in stack.host.lines():
                print(line, end="", flush=True)
                # After the host's list of functions, so that the commands to copy come last.
                if line.strip() == stack.host.ready_line:
                    print(greeting(stack, asked.path.name), flush=True)
            print("The Functions host ended unexpectedly: see its output above.", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (AlreadyRunningError, AzuriteError, ChildError, SettingsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def greeting(stack: Stack, settings_file: str) -> str:
    return _GREETING.format(
        settings=settings_file,
        base=stack.base_url,
        emulator=stack.emulator_url or "from the settings",
        storage=stack.storage.blob_endpoint if stack.storage else "from the settings",
        key=f"{stack.function_key} (for development, not a secret)" if stack.function_key else _NO_KEY,
        header=f" -H 'x-functions-key: {stack.function_key}'" if stack.function_key else "",
    )


_NO_KEY = "not required; with KEYS=1 it is, as in Azure"
# The curl of Ubuntu 22.04 does not have %header{location}, hence tr and sed.
_GREETING = r"""
The app         {base}   (settings: {settings})
The image APIs  {emulator}
Blob Storage    {storage}
Function key    {key}

Start a generation and keep its Location, as a workflow does:

  location=$(curl -si {base}/generations{header} -H 'Content-Type: application/json' \
    -d '{{"prompt": "a lighthouse in fog"}}' | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')

Repeat this until the status is no longer 202:

  curl -i "$location"

Ctrl-C stops everything.
"""

if __name__ == "__main__":
    sys.exit(main())
