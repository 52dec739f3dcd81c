"""Child processes that end when their parent does, however the parent ends."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

# A parent killed with SIGKILL runs no handler, so the kernel has to end the child: PR_SET_PDEATHSIG (1). It is set
# by a launcher that then becomes the command with exec, which keeps it. So the pid is the command's own, and no
# Python runs between fork and exec in a parent that may have threads, which is the trouble with preexec_fn. The
# parent may die before prctl is called: the launcher sees that its parent is another by then.
# The kernel watches the *thread* that started the child: start children from a thread that outlives them.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


_KEPT_LINES = 10_000
"""A host that runs for days prints without end."""


class ChildError(Exception):
    """A child ended, or stayed silent too long, before it did what was waited for."""


@dataclass
class Child:
    """A running command and what it has printed, the newest 10,000 lines."""

    process: subprocess.Popen[str]
    ready_line: str = ""
    _lines: deque[str] = field(default_factory=lambda: deque[str](maxlen=_KEPT_LINES))
    _printed: int = 0
    """Lines ever, also those that are no longer kept."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Standard output and standard error so far, in the order they came."""
        with self._changed:
            return "".join(self._lines)

    @property
    def closed(self) -> bool:
        """Whether no more output can come."""
        with self._changed:
            return self._closed

    def wait_for(self, pattern: str, *, timeout: float = 30) -> re.Match[str]:
        """Return the first match of `pattern` in one line of output, kept or to come.

        Raises
        ------
        ChildError
            The child closed its output, or `timeout` seconds passed, without such a line.
        """
        wanted, seen, deadline = re.compile(pattern), 0, time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._since(seen):
                    if match := wanted.search(line):
                        return match
                seen = self._printed
                if self._closed:
                    raise ChildError(f"ended without printing {pattern!r}:\n{''.join(self._lines)}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise ChildError(f"{timeout} s without printing {pattern!r}:\n{''.join(self._lines)}")

    def lines(self) -> Generator[str]:
        """Each line of output, those kept and those to come, until the child ends.

        Who takes them more slowly than they come misses those that are no longer kept.
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
        """The lines kept that came after the first `printed` ones."""
        newest_first = islice(reversed(self._lines), self._printed - printed)
        return list(newest_first)[::-1]

    def wait(self, timeout: float = 30) -> int:
        """Return the exit code once the child has ended by itself."""
        return self.process.wait(timeout)

    def terminate(self, *, grace: float = 15) -> int:
        """Ask the child to end (SIGTERM), kill it after `grace` seconds, return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self.process.kill()
        return self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def read(self) -> None:
        """Collect output until it closes. Runs on a thread, so that the child never waits on a full pipe."""
        stdout = self.process.stdout
        if stdout is None:
            raise ChildError("a child is read from a pipe")
        for line in stdout:
            with self._changed:
                self._lines.append(line)
                self._printed += 1
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@contextlib.contextmanager
def running(args: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Generator[Child]:
    """Run a command, not waiting for anything; see `start`."""
    process = subprocess.Popen(
        [*_die_with_parent(), *args],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
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
        # A grandchild may hold the pipe open; its output is not worth waiting for.
        reader.join(2)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()


@contextlib.contextmanager
def start(
    args: Sequence[str],
    *,
    ready: str,
    what: str = "The command",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 30,
) -> Generator[Child]:
    """Run a command for the length of a `with` block, entered once it has printed its ready line.

    Parameters
    ----------
    args
        The command; `python("package.module", ...)` for a module run by this interpreter.
    ready
        Regular expression of the line that says it is ready. That line is `Child.ready_line`.
    what
        What an error calls it.
    env
        Added to this process's environment.
    timeout
        Seconds to wait for the ready line.

    Raises
    ------
    ChildError
        It ended, or stayed silent, before it was ready. The message says what did not start, and holds its output.
    """
    with running(args, env=env, cwd=cwd) as child:
        try:
            child.ready_line = child.wait_for(ready, timeout=timeout).string.strip()
        except ChildError as error:
            late = "" if child.closed else f" within {timeout:g} s"
            raise ChildError(
                f"{what} did not start{late}:\n{child.output.rstrip() or '(it printed nothing)'}"
            ) from error
        yield child


def python(module: str, *args: str) -> list[str]:
    """Return the command that runs `module` with this interpreter, unbuffered."""
    return [sys.executable, "-u", "-m", module, *args]


def _die_with_parent() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
