"""``make start``: the whole app in the foreground, with data that survives Ctrl-C and a kill."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from azure.core.exceptions import AzureError

from imagegen.deployments import Deployment
from imagegen.errors import StorageUnavailableError
from local import settings as local_settings
from local.azurite import ACCOUNT, ACCOUNT_KEY, Azurite, AzuriteError, azurite
from local.data_folder import (
    AlreadyRunningError,
    FolderError,
    Lock,
    PortError,
    Ports,
    check_asked,
    exclusive,
    is_free,
    port_of,
)
from local.host.__main__ import GRACE
from local.processes import Child, ChildError
from local.recovery import Unfinished, recover
from local.settings import API_KEY, EMULATOR_PORT, ENDPOINT, STORAGE, LocalSettings, SettingsError
from local.signals import stop_on_sigterm
from local.stack import EVERY_MODEL, FUNCTION_KEY, KEY, ROOT, Stack, emulator, functions_host

PORT = 7071
_DATA = ".local"
_ANY_CONNECTION = (
    f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint=http://x/x;"
)


@dataclass(frozen=True)
class Command:
    """What the command line asks for."""

    data: Path
    port: int | None
    """None: 7071, or a free one."""
    function_key: str | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Command:
        """Raise SettingsError for an invalid value."""
        port = local_settings.port(environ, PORT) if environ.get("PORT") else None
        text = environ.get("DATA") or _DATA
        try:
            data = ROOT / Path(text).expanduser()
        except RuntimeError:
            raise SettingsError(
                f"DATA={text} names a user that does not exist. Name a folder, such as DATA=.local-2."
            ) from None
        if data.exists() and not data.is_dir():
            raise SettingsError(f"DATA={data} is a file. Name a folder, such as DATA=.local-2.")
        return cls(data, port, FUNCTION_KEY if local_settings.keys(environ) else None)


@dataclass(frozen=True)
class Running:
    """A stack, and what its developer must know."""

    stack: Stack
    settings: LocalSettings
    data: Path
    default: Deployment
    """What a request without `model` uses."""
    notes: Sequence[str] = ()
    """A line each."""


@contextlib.contextmanager
def developer_stack(settings: LocalSettings, command: Command) -> Generator[Running]:
    """Run the app with these settings.

    Azurite and the emulator start only if the settings do not name another storage account or image service.

    Raises
    ------
    SettingsError
        The app would refuse the settings. Nothing has been started.
    PortError
        The port that PORT= asks for is in use. Nothing has been started.
    """
    env = environment(settings)
    checked = local_settings.check({**os.environ, **env})
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(exclusive(command.data / "azurite.lock"))
        if command.port:
            check_asked(command.port)
        ports = Ports(command.data / "ports.json")
        notes: list[str] = []
        storage = emulator_url = emulator_child = None
        if settings.wants_azurite:
            storage = _on_free_ports(lambda: stack.enter_context(_azurite(command.data, ports, lock)))
            env[STORAGE] = storage.connection_string
            found = recover(storage.connection_string, checked.generations_container)
            notes += unfinished_notes(found, was_killed=lock.was_killed, repeats=checked.repeat_lost_calls)
        if settings.wants_emulator:
            emulator_url, emulator_child = _on_free_ports(lambda: stack.enter_context(_emulator(command.data, ports)))
            env[ENDPOINT] = emulator_url
        base_url, host = _on_free_ports(lambda: stack.enter_context(_host(env, command, ports)))
        running = Stack(base_url, emulator_url, storage, host, emulator_child, command.function_key)
        default = checked.deployments[0]
        yield Running(running, settings, command.data, default, (*notes, *ports.notes, *_about_endpoint(settings)))


_EMULATOR_MOVED = (
    "Unfinished generations of the model 'operations' poll the old port. For them, end that program and start again."
)
_APP_MOVED = "A Location from the last run names the old port. To use it, end that program and start again."
_BLOBS_MOVED = "Image links from the last run name the old port: GET the generation again for new ones."


def environment(settings: LocalSettings) -> dict[str, str]:
    """Return the environment of the app, with the usual addresses of what is not started yet."""
    env = dict(settings.values)
    if settings.wants_azurite:
        env[STORAGE] = _ANY_CONNECTION
    if settings.wants_emulator:
        env |= {ENDPOINT: f"http://127.0.0.1:{EMULATOR_PORT}", API_KEY: KEY}
    if settings.is_local_endpoint and not settings.names_deployments:
        env["IMAGE_DEPLOYMENTS"] = EVERY_MODEL
    return env


@contextlib.contextmanager
def _azurite(data: Path, ports: Ports, lock: Lock) -> Generator[Azurite]:
    blob = ports.choose("blobs", 10000, moved=_BLOBS_MOVED)
    queue, table = ports.choose("queues", 10001), ports.choose("tables", 10002)
    folder = data / "azurite"
    with azurite(
        folder, blob_port=blob, queue_port=queue, table_port=table, keep_open=(lock.file_descriptor,)
    ) as storage:
        ports.remember(blobs=port_of(storage.blob_endpoint), queues=port_of(storage.queue_endpoint))
        yield storage


@contextlib.contextmanager
def _emulator(data: Path, ports: Ports) -> Generator[tuple[str, Child]]:
    port = ports.choose("emulator", EMULATOR_PORT, moved=_EMULATOR_MOVED)
    with emulator("--state", str(data / "emulator.sqlite"), port=port) as (url, child):
        ports.remember(emulator=port_of(url))
        yield url, child


@contextlib.contextmanager
def _host(env: Mapping[str, str], command: Command, ports: Ports) -> Generator[tuple[str, Child]]:
    port = ports.choose("app", PORT, moved=_APP_MOVED) if command.port is None else command.port
    with functions_host(env, port=port, function_key=command.function_key) as (url, child):
        if command.port is None:
            ports.remember(app=port_of(url))
        yield url, child


def _on_free_ports[Started](start: Callable[[], Started]) -> Started:
    """Start once more if another process used a port after it was chosen: the second start chooses again."""
    try:
        return start()
    except (AzuriteError, ChildError) as error:
        if not any(words in str(error) for words in ("EADDRINUSE", os.strerror(errno.EADDRINUSE))):
            raise
    return start()


def unfinished_notes(found: Unfinished, *, was_killed: bool, repeats: bool) -> list[str]:
    """A line about the generations of the last run, and one about its cut calls.

    Parameters
    ----------
    repeats
        REPEAT_LOST_CALLS.
    """
    failing = 0 if repeats else found.cut_calls
    going = found.generations - failing
    beginning = "From the last run, "
    if was_killed:
        beginning = "The last run was killed. " if failing else "The last run was killed. Nothing is lost: "
    notes: list[str] = []
    if going:
        notes.append(f"{beginning}{going} generation{' goes' if going == 1 else 's go'} on.")
    if found.cut_calls:
        calls = "1 call was cut: it" if found.cut_calls == 1 else f"{found.cut_calls} calls were cut: they"
        repeated = f"{'is' if found.cut_calls == 1 else 'are'} repeated and may be billed again."
        failed = f"{'fails' if found.cut_calls == 1 else 'fail'} with outcomeUnknown (REPEAT_LOST_CALLS=false)."
        notes.append(f"{calls} {repeated if repeats else failed}")
    return notes


def _about_endpoint(settings: LocalSettings) -> list[str]:
    """Notes about the settings of the environment that a developer may not expect."""
    if settings.wants_emulator and API_KEY in settings.from_shell:
        return [f"{API_KEY} of the environment is not used: the emulator has its own key."]
    port = None if settings.wants_emulator else settings.endpoint_port
    if port is not None and is_free(port):
        return [f"No program listens on port {port} of {ENDPOINT} yet. Generations wait until it does."]
    return []


_ERRORS = (
    AlreadyRunningError,
    AzureError,
    AzuriteError,
    ChildError,
    FolderError,
    OSError,
    PortError,
    SettingsError,
    StorageUnavailableError,
)


def main(arguments: Sequence[str] = ()) -> int:  # noqa: ARG001 - the signature of every command
    """Run the app until a signal arrives."""
    stop_on_sigterm()
    try:
        command = Command.read(os.environ)
        with developer_stack(local_settings.read(ROOT, os.environ), command) as running:
            try:
                return _follow(running)
            except KeyboardInterrupt:
                print(f"\nStopping. Running calls have {GRACE:g} s to end; Ctrl-C again stops at once.", flush=True)
    except KeyboardInterrupt:
        pass
    except _ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    print("Stopped. Nothing is lost: make start goes on with it.", flush=True)
    return 0


def _follow(running: Running) -> int:
    """Print the output of the host until a process ends, which none should."""
    host = running.stack.host
    others = {"The emulator": running.stack.emulator}
    if running.stack.storage:
        others["Azurite"] = running.stack.storage.process
    for child in filter(None, others.values()):
        threading.Thread(target=_end_together, args=(child, host), daemon=True).start()
    for line in host.lines():
        print(line, end="", flush=True)
        # After the host's list of functions, so that the commands to copy come last.
        if line.strip() == host.ready_line:
            print(greeting(running), flush=True)
    ended = [name for name, child in others.items() if child and child.process.poll() is not None]
    name = ended[0] if ended else "The Functions host"
    print(f"{name} ended unexpectedly: see the output above. Nothing is lost: run make start again.", file=sys.stderr)
    return 1


def _end_together(child: Child, host: Child) -> None:
    """Kill the host when the child ends: without it, the host can neither call nor save anything."""
    child.process.wait()
    host.process.kill()


def greeting(running: Running) -> str:
    stack, settings = running.stack, running.settings
    return _GREETING.format(
        settings=_settings(settings),
        base=stack.base_url,
        images=stack.emulator_url or f"{settings.endpoint} ({ENDPOINT} of {settings.place_of(ENDPOINT)}; no emulator)",
        storage=stack.storage.blob_endpoint if stack.storage else f"{STORAGE} of {settings.place_of(STORAGE)}",
        data=running.data,
        model=f"{running.default.name} (API '{running.default.api}'); all models: {stack.base_url}/models",
        key=f"{stack.function_key} (for development, not a secret)" if stack.function_key else _NO_KEY,
        header=f" -H 'x-functions-key: {stack.function_key}'" if stack.function_key else "",
        notes="".join(f"{note}\n" for note in running.notes) + ("\n" if running.notes else ""),
    )


def _settings(settings: LocalSettings) -> str:
    unused = {API_KEY} if settings.wants_emulator else set[str]()
    names = ", ".join(sorted(settings.from_shell - unused))
    return f"{settings.path.name}; from the environment: {names}" if names else settings.path.name


_NO_KEY = "not required; with KEYS=1 it is, as in Azure"
# The curl of Ubuntu 22.04 does not have %header{location}, hence tr and sed.
_GREETING = r"""
The app         {base}/health (opens in a browser)
The image APIs  {images}
Default model   {model}
Blob Storage    {storage}
Settings        {settings}
Data            {data}
Function key    {key}

{notes}Start a generation and keep its Location, as a workflow does:

  location=$(curl -si {base}/generations{header} -H 'Content-Type: application/json' \
    -d '{{"prompt": "a lighthouse in fog"}}' | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')

Repeat this until the status is no longer 202:

  curl -i "$location"

Ctrl-C stops everything. The data stays.
"""
