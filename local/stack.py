"""Everything that the app needs, on this machine: Azurite, the emulator of the image API, the Functions host.

``python -m local start`` (``make start``) runs it in the foreground; the demo and the end-to-end tests run it for the
length of a ``with`` block.
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
from local.ending import stop_on_sigterm
from local.processes import Child, ChildError, python, start
from local.settings import LocalSettings, SettingsError

ROOT = Path(__file__).parent.parent
KEY = "local-openai-key"
"""What the emulator takes as api-key: no secret."""
_LOCAL = ROOT / ".local"
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
    command = python("local.emulator", "--port", str(port), *options)
    with start(command, ready=_READY, what="The image API emulator", cwd=ROOT) as child:
        yield child.wait_for(_READY).group(1), child


@contextlib.contextmanager
def functions_host(env: Mapping[str, str], *, port: int = 0, root: Path = ROOT) -> Generator[tuple[str, Child]]:
    """The Functions host with this repository's app: its base URL and its process."""
    command = python("local.host", "--port", str(port), "--root", str(root))
    with start(command, ready=_READY, what="The Functions host", env=env, cwd=ROOT) as child:
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
def developer_stack(settings: LocalSettings, *, port: int) -> Generator[Stack]:
    """What ``settings`` ask for, on the usual ports where these are free.

    Storage and image service that are this machine's own are started; others are used as they are.
    """
    with contextlib.ExitStack() as stack:
        env = dict(settings.values)
        storage = emulator_url = emulator_child = None
        # What is wrong with a setting is said before anything is started.
        emulator_port = settings.emulator_port
        if settings.wants_azurite:
            stack.enter_context(only_one(_LOCAL / "azurite.lock"))
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
        base_url, host = stack.enter_context(functions_host(env, port=free_port(port)))
        yield Stack(base_url, emulator_url, storage, host, emulator_child)


class AlreadyRunningError(Exception):
    """Another ``make start`` runs in this folder. The message says how to end it."""


@contextlib.contextmanager
def only_one(lock: Path) -> Generator[None]:
    """Hold this file's lock: two Azurites would write over each other's data in one folder.

    The kernel frees it however this process ends, so a file that is left behind locks nobody out.

    Raises
    ------
    AlreadyRunningError
        Another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise AlreadyRunningError(
                f"make start already runs (pid {pid}), with the data in {lock.with_suffix('')}: "
                f"end it with Ctrl-C in its terminal, or with `kill {pid}`"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def free_port(usual: int) -> int:
    """This port if nobody listens there, else 0: any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual


def main(arguments: Sequence[str] = ()) -> int:  # noqa: ARG001 - called as every command is
    """Run it all until a signal comes."""
    stop_on_sigterm()
    try:
        port = local_settings.port(os.environ, 7071)
        asked = local_settings.read(ROOT, os.environ)
        with developer_stack(asked, port=port) as stack:
            for line in stack.host.lines():
                print(line, end="", flush=True)
                # After the host's own list of functions: what is shown last is what to copy.
                if line.strip() == stack.host.ready_line:
                    print(_greeting(stack, asked.path.name), flush=True)
            print("The Functions host stopped.", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (AlreadyRunningError, AzuriteError, ChildError, SettingsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _greeting(stack: Stack, settings_file: str) -> str:
    return _GREETING.format(
        settings=settings_file,
        base=stack.base_url,
        emulator=stack.emulator_url or "as the settings say",
        storage=stack.storage.blob_endpoint if stack.storage else "as the settings say",
    )


# curl's own %header{location} is newer than the curl of Ubuntu 22.04, hence tr and sed.
_GREETING = r"""
The app         {base}   (settings: {settings})
The image API   {emulator}
Blob Storage    {storage}

Start a generation, and keep the Location that a workflow follows:

  location=$(curl -si {base}/generations -H 'Content-Type: application/json' \
    -d '{{"prompt": "a lighthouse in fog"}}' | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')

Then look there until it is no longer 202:

  curl -i "$location"

Ctrl-C stops everything.
"""

if __name__ == "__main__":
    sys.exit(main())
