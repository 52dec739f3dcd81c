"""Child processes that end with their parent, even if the parent is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence
    from pathlib import Path

# A parent that is killed with SIGKILL runs no handler, so the kernel must signal the child: PR_SET_PDEATHSIG (1).
# A launcher sets it and then becomes the command with exec, which keeps the setting. So the command has the pid of
# the launcher. Unlike preexec_fn, this runs no Python code between fork and exec in a parent with threads.
# If the parent dies before prctl is called, the launcher notices that it has another parent.
# The kernel watches the *thread* that started the child: start children from a thread that outlives them.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


_KEPT_LINES = 10_000
"""A limit, because a host that runs for days never stops printing."""


class ChildError(Exception):
    """A child ended, or a timeout passed, before the child printed the expected line."""


@dataclass
class Child:
    """A running command and its output, the newest 10,000 lines."""

    process: subprocess.Popen[str]
    ready_line: str = ""
    _lines: deque[str] = field(default_factory=lambda: deque[str](maxlen=_KEPT_LINES))
    _printed: int = 0
    """All lines so far, including dropped ones."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Standard output and standard error so far, in order."""
        with self._changed:
            return "".join(self._lines)

    @property
    def closed(self) -> bool:
        """Whether the output has ended."""
        with self._changed:
            return self._closed

    def wait_for(self, pattern: str, *, timeout: float = 30) -> re.Match[str]:
        """Return the first match of `pattern` in a line of output, past or future.

        Raises
        ------
        ChildError
            The output ended, or `timeout` seconds passed, without such a line.
        """
        wanted, seen, deadline = re.compile(pattern), 0, time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._since(seen):
                    if match := wanted.search(line):
                        return match
                seen = self._printed
                if self._closed:
                    raise ChildError(f"The command ended without printing {pattern!r}:\n{''.join(self._lines)}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise ChildError(f"The command did not print {pattern!r} in {timeout} s:\n{''.join(self._lines)}")

    def lines(self) -> Generator[str]:
        """Yield each line of output, past and future, until the child ends.

        A slow reader misses the lines that have been dropped.
        """
        shown = 0
        while True:
            with self._changed:
                while self._printed == shown and not self._closed:
                    self._changed.wait()
                new = self._since(shown)
                shown = self._printed
            if not new:
                return
            yield from new

    def _since(self, printed: int) -> list[str]:
        """Return the kept lines after the first `printed` ones."""
        newest_first = islice(reversed(self._lines), self._printed - printed)
        return list(newest_first)[::-1]

    def wait(self, timeout: float = 30) -> int:
        """Wait for the child to end by itself, and return its exit code."""
        return self.process.wait(timeout)

    def terminate(self, *, grace: float = 15) -> int:
        """Send SIGTERM, kill the child after `grace` seconds, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            return self.kill()
        except KeyboardInterrupt:  # a second Ctrl-C: do not wait
            self.kill()
            raise

    def kill(self) -> int:
        self.process.kill()
        return self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def read(self) -> None:
        """Collect the output until it ends. Runs in a thread, so that the child never blocks on a full pipe."""
        stdout = self.process.stdout
        if stdout is None:
            raise ChildError("The output of the command is not a pipe")
        for line in stdout:
            with self._changed:
                self._lines.append(line)
                self._printed += 1
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@contextlib.contextmanager
def running(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_open: Collection[int] = (),
    death_signal: signal.Signals = signal.SIGKILL,
) -> Generator[Child]:
    """Run a command as `start` does, but do not wait for a ready line."""
    process = subprocess.Popen(
        [*_die_with_parent(death_signal), *args],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=keep_open,
        # Ctrl-C in a terminal, or a kill of the process group, reaches the parent only. It ends its children in order.
        start_new_session=True,
        text=True,
        errors="replace",
    )
    child = Child(process)
    reader = threading.Thread(target=child.read, name=f"output of {process.pid}", daemon=True)
    reader.start()
    try:
        yield child
    finally:
        if process.poll() is None:
            child.terminate()
        # A grandchild may keep the pipe open. Do not wait for its output.
        reader.join(2)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()


@contextlib.contextmanager
def start(
    args: Sequence[str],
    *,
    ready: str,
    name: str = "The command",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 30,
    keep_open: Collection[int] = (),
    death_signal: signal.Signals = signal.SIGKILL,
) -> Generator[Child]:
    """Run a command during a `with` block, which starts when the command has printed its ready line.

    Parameters
    ----------
    args
        The command, for example `python("package.module", ...)`.
    ready
        Regular expression for the ready line, which becomes `Child.ready_line`.
    name
        Name of the command in error messages.
    env
        Additions to the environment of this process.
    timeout
        Seconds to wait for the ready line.
    keep_open
        File descriptors that the command inherits.
    death_signal
        The signal that the command gets when its parent is killed (Linux).

    Raises
    ------
    ChildError
        The command ended, or the timeout passed, before the ready line. The message contains the output.
    """
    with running(args, env=env, cwd=cwd, keep_open=keep_open, death_signal=death_signal) as child:
        try:
            child.ready_line = child.wait_for(ready, timeout=timeout).string.strip()
        except ChildError as error:
            late = "" if child.closed else f" within {timeout:g} s"
            raise ChildError(f"{name} did not start{late}:\n{child.output.rstrip() or '(no output)'}") from error
        yield child


def python(module: str, *args: str) -> list[str]:
    """Return the command that runs `module` with this interpreter, unbuffered."""
    return [sys.executable, "-u", "-m", module, *args]


def _die_with_parent(death_signal: signal.Signals) -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(death_signal))]
