"""The data of `make start`: one folder for Azurite, the emulator, and the ports that they used."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

_END_SECONDS = 15.0
"""Time for Azurite of a killed `make start` to write its data and end."""


class AlreadyRunningError(Exception):
    """Another process uses the folder. The message says what to do."""


class FolderError(Exception):
    """The folder cannot be used. The message is one line."""


class PortError(Exception):
    """A port that was asked for cannot be used. The message is one line."""


@dataclass(frozen=True)
class Lock:
    """The lock of a folder. A process that inherits the file descriptor holds it too."""

    file_descriptor: int
    was_killed: bool
    """Whether the run before did not release the lock."""


@contextlib.contextmanager
def exclusive(lock: Path, *, patience: float = _END_SECONDS) -> Generator[Lock]:
    """Hold the lock of a file: two Azurites would overwrite each other's data in one folder.

    The kernel releases the lock when each process that holds it has ended in any way. A file that remains is not a
    lock. If its process was killed, wait for those that inherited it.

    Raises
    ------
    AlreadyRunningError
        Another process holds the lock.
    FolderError
        The folder cannot be made, or does not accept a file.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise FolderError(
            f"The folder {lock.parent} cannot be used for the data: {error.strerror}. Name another one, such as "
            "DATA=.local-2."
        ) from None
    with opened as file:
        deadline = time.monotonic() + patience
        while not _locked(file.fileno()):
            file.seek(0)
            pid = file.read().strip()
            if _is_alive(pid):
                raise AlreadyRunningError(_RUNNING.format(pid=pid, folder=lock.parent))
            if time.monotonic() > deadline:
                raise AlreadyRunningError(_REMAINS.format(pid=pid or "unknown", folder=lock.parent, lock=lock))
            time.sleep(0.05)
        file.seek(0)
        was_killed = bool(file.read())
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        ended_in_order = False
        try:
            yield Lock(file.fileno(), was_killed)
            ended_in_order = True
        finally:
            # A start that fails leaves the mark of the kill before it: its developer has not read the note yet.
            if ended_in_order or not was_killed:
                file.truncate(0)


_RUNNING = (
    "make start is already running (pid {pid}) with the data in {folder}. Stop it with Ctrl-C in its terminal, or with "
    "`kill {pid}`. To run a second one, give it its own folder: make start DATA=.local-2"
)
_REMAINS = (
    "make start (pid {pid}) was killed, but a process of it still uses the data in {folder}. End it with "
    "`kill $(lsof -t {lock})`, and start again."
)


def _locked(file_descriptor: int) -> bool:
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):  # ValueError: it has not written its pid yet, or it is stopping
        return False
    except PermissionError:  # of another user
        return True
    return True


@dataclass
class Ports:
    """The ports of the last run, which URLs from that run name. Kept in a file."""

    file: Path
    notes: list[str] = field(default_factory=list[str])
    """A line for each unusual port."""

    def choose(self, service: str, usual: int, *, moved: str = "") -> int:
        """Return the port of the last run, or the usual one; 0 (any port) if it is in use.

        Parameters
        ----------
        moved
            What follows when a service leaves the port of the last run.
        """
        last = self._read().get(service)
        port = last or usual
        if not is_free(port):
            note = (
                f"Port {port} ({service}) is in use by another program, so a free port is used. {moved if last else ''}"
            )
            self._note(note.rstrip())
            return 0
        if port != usual:
            note = (
                f"Port {port} ({service}) as in the last run. To return to port {usual}, stop and delete {self.file}."
            )
            self._note(note)
        return port

    def _note(self, note: str) -> None:
        if note not in self.notes:  # a second try chooses again
            self.notes.append(note)

    def remember(self, **ports: int) -> None:
        """Write the ports of new services. A port stays, also if one run had to use another.

        The file is replaced, so that a crash leaves the old or the new content.
        """
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps(ports | self._read()), encoding="utf-8")
        temporary.replace(self.file)

    def _read(self) -> dict[str, int]:
        try:
            found: Any = json.loads(self.file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # ValueError: edited by hand; the usual ports do no harm
            return {}
        ports = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        return {name: port for name, port in ports.items() if isinstance(port, int) and 0 < port < 2**16}


def is_free(port: int) -> bool:
    return _problem(port) is None


def check_asked(port: int) -> None:
    """Raise PortError if the port that PORT= asks for cannot be used."""
    if (problem := _problem(port)) is not None:
        raise PortError(f"PORT={port} cannot be used: {problem}. Choose another port, or leave PORT out.")


def _problem(port: int) -> str | None:
    """Return why this port of this machine cannot be used; None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return None


def port_of(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise ValueError(f"{url} has no port")
    return port
