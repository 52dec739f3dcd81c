from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from local.data_folder import AlreadyRunningError, FolderError, PortError, Ports, check_asked, exclusive


@pytest.fixture
def taken() -> Generator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_second_start_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / ".local" / "azurite.lock"
    message = rf"make start is already running \(pid {os.getpid()}\).*`kill .* make start DATA="
    with exclusive(lock), pytest.raises(AlreadyRunningError, match=message), exclusive(lock):
        pass
    with exclusive(lock) as held:
        assert not held.was_killed
        assert lock.read_text() == str(os.getpid())


HOLD = """
import os, signal, subprocess, sys
from pathlib import Path
from local.data_folder import exclusive
quiet = subprocess.DEVNULL
with exclusive(Path(sys.argv[1])) as lock:
    subprocess.Popen(["sleep", sys.argv[2]], pass_fds=[lock.file_descriptor], stdout=quiet, stderr=quiet)
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_holder(lock: Path, seconds: str) -> str:
    """Return the pid of a killed process whose child holds the lock for this time."""
    command = [sys.executable, "-c", HOLD, str(lock), seconds]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()


def test_lock_waits_for_processes_of_a_killed_run(tmp_path: Path) -> None:
    killed_holder(tmp_path / "lock", "1")
    with exclusive(tmp_path / "lock") as held:
        assert held.was_killed


def test_start_that_fails_keeps_the_note_of_a_kill(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    killed_holder(lock, "0")
    for _ in range(2):
        with pytest.raises(PortError):
            fail_to_start(lock, was_killed=True)
    with exclusive(lock) as held:
        assert held.was_killed
    for _ in range(2):  # a failed start is no kill
        with pytest.raises(PortError):
            fail_to_start(lock, was_killed=False)


def fail_to_start(lock: Path, *, was_killed: bool) -> None:
    with exclusive(lock) as held:
        assert held.was_killed is was_killed
        raise PortError


def test_process_that_remains_is_named(tmp_path: Path) -> None:
    pid = killed_holder(tmp_path / "lock", "3")
    with (
        pytest.raises(AlreadyRunningError, match=rf"\(pid {pid}\) was killed, but .*lsof -t {tmp_path / 'lock'}"),
        exclusive(tmp_path / "lock", patience=0.1),
    ):
        pass


def test_ports_stay_the_same(tmp_path: Path, free: int) -> None:
    ports = Ports(tmp_path / "ports.json")
    assert ports.choose("app", free) == free
    assert ports.notes == []
    ports.remember(app=free)
    again = Ports(tmp_path / "ports.json")
    assert again.choose("app", 7071) == free
    assert again.notes == [
        f"Port {free} (app) as in the last run. To return to port 7071, stop and delete {tmp_path / 'ports.json'}."
    ]


def test_used_port_is_replaced_with_a_note(tmp_path: Path, taken: int, free: int) -> None:
    ports = Ports(tmp_path / "ports.json")
    assert ports.choose("app", taken, moved="Links are stale.") == 0
    assert ports.notes == [f"Port {taken} (app) is in use by another program, so a free port is used."]
    ports.remember(app=taken)
    ports.remember(app=free)  # of the run that could not have it: the first one stays
    again = Ports(tmp_path / "ports.json")
    assert again.choose("app", 7071, moved="Links are stale.") == 0
    assert again.notes == [f"{ports.notes[0]} Links are stale."]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"app": "7"}', '{"app": 99999}', '{"app": null}'])
def test_damaged_file_means_the_usual_ports(tmp_path: Path, text: str, free: int) -> None:
    (tmp_path / "ports.json").write_text(text)
    ports = Ports(tmp_path / "ports.json")
    assert ports.choose("app", free) == free
    ports.remember(app=free)
    assert ports.notes == []


def test_asked_port_that_is_used_is_an_error(taken: int, free: int) -> None:
    check_asked(free)
    with pytest.raises(PortError, match=rf"^PORT={taken} cannot be used: Address already in use\. Choose another"):
        check_asked(taken)


def test_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for parent in (Path("/proc/x"), tmp_path / "file" / "x"):
        message = rf"^The folder {parent} cannot be used for the data: .+\. Name another"
        with pytest.raises(FolderError, match=message), exclusive(parent / "azurite.lock"):
            pass
