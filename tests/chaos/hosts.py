"""Host processes that are killed and started again, always on the same ports."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from imagegen.crash_points import CrashPoint
from local.processes import Child, python, running
from local.stack import ROOT

_PROBABILITY: Final = 0.5
"""Of a crash each time that a host comes to its crash point."""

_RARE: Final = frozenset(
    {CrashPoint.COPY_CLAIMED, CrashPoint.PAUSE_WRITTEN, CrashPoint.IMAGES_DELETED, CrashPoint.KEY_DROPPED}
)
"""Points that a host seldom comes to: it always crashes there."""

_HOST_GRACE: Final = 60.0
"""Seconds. Longer than the time to a SIGKILL, so that a host that ends by itself has finished its functions."""

_EVENTS: Final = ("generation.stuck", "generation.call_repeated", "generation.claim_lost", "Traceback (most recent")
"""Counted in the output of the hosts."""


class Host:
    """One port, and the lives of the process that listens there.

    Start and stop hosts on one thread that outlives them (see `local.processes`).
    """

    def __init__(self, port: int, log: Path) -> None:
        self.base_url = f"http://127.0.0.1:{port}/api"
        self._port = port
        self._log = log
        self._life = ExitStack()
        self.child: Child | None = None
        self.crash_point: CrashPoint | None = None
        self.kill_at: float | None = None
        """Of `time.monotonic`: end of the grace period after SIGTERM."""

    def start(self, env: Mapping[str, str], crash_point: CrashPoint | None) -> None:
        self.crash_point, self.kill_at = crash_point, None
        points = f"{crash_point}={1 if crash_point in _RARE else _PROBABILITY}" if crash_point else ""
        command = python("local.host", "--port", str(self._port), "--root", str(ROOT), "--grace", str(_HOST_GRACE))
        self.child = self._life.enter_context(
            running(command, env={**env, "IMAGEGEN_TEST_CRASH_POINTS": points}, cwd=ROOT)
        )

    @property
    def is_ready(self) -> bool:
        return self.child is not None and "\nReady: " in self.child.output

    def close(self) -> str:
        """End this life. Return its output."""
        if self.child is None:
            return ""
        self.child.kill()
        self._life.close()  # reads the rest of the output
        output = self.child.output
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{output}--- ended with {self.child.process.returncode}; its crash point: {self.crash_point}\n")
        self.child = None
        return output


class Fleet:
    """All hosts, kept alive.

    Parameters
    ----------
    crash_points
        One for each life, in this order, while there are any. A point that a life did not reach returns to the end.
    after_end
        Called whenever a host was killed or ended.
    """

    def __init__(
        self,
        count: int,
        env: Mapping[str, str],
        *,
        crash_points: Iterable[CrashPoint],
        after_end: Callable[[], None],
        logs: Path,
    ) -> None:
        self._env = env
        self._after_end = after_end
        self._crash_points = deque(crash_points)
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("host-*.log"):
            old.unlink()
        self.hosts = [Host(port, logs / f"host-{index}.log") for index, port in enumerate(_free_ports(count))]
        self.crashed: Counter[CrashPoint] = Counter()
        self.killed = 0
        self.drained = 0
        self.drained_in_time = 0
        self.ended_by_itself: list[str] = []
        """The last line of output of each host that ended without a signal."""
        self.events: Counter[str] = Counter()

    @property
    def base_urls(self) -> list[str]:
        return [host.base_url for host in self.hosts]

    def start(self) -> None:
        for host in self.hosts:
            host.start(self._env, self._next_crash_point())

    def kill(self, index: int, grace: float | None) -> bool:
        """Kill a host and start it again. Return False, and do nothing, when it is not ready yet.

        Parameters
        ----------
        grace
            Seconds between SIGTERM and the SIGKILL that `tend` sends. None: SIGKILL at once.
        """
        host = self.hosts[index]
        if host.child is None or not host.is_ready or host.kill_at is not None:
            return False
        if grace is None:
            self.killed += 1
            self._restart(host)
        else:
            self.drained += 1
            host.kill_at = time.monotonic() + grace
            host.child.signal(signal.SIGTERM)
        return True

    def tend(self) -> None:
        """Start the hosts again that have ended, and end those whose grace period is over."""
        for host in self.hosts:
            code = host.child.process.poll() if host.child else None
            if code is not None:
                self._note_end(host, code)
                self._restart(host)
            elif host.kill_at is not None and time.monotonic() >= host.kill_at:
                self._restart(host)

    def stop(self) -> None:
        """SIGKILL to all."""
        for host in self.hosts:
            self._close(host)

    def start_calm(self) -> None:
        """Start all hosts without crash points."""
        for host in self.hosts:
            host.start(self._env, None)

    def _note_end(self, host: Host, code: int) -> None:
        if host.kill_at is not None:
            self.drained_in_time += code == 0
        elif code == -signal.SIGKILL and host.crash_point:
            self.crashed[host.crash_point] += 1
            host.crash_point = None
        else:
            lines = host.child.output.strip().splitlines() if host.child else []
            self.ended_by_itself.append(f"exit code {code}: {' | '.join(lines[-2:])}")

    def _restart(self, host: Host) -> None:
        if host.crash_point:
            self._crash_points.append(host.crash_point)
        self._close(host)
        self._after_end()
        host.start(self._env, self._next_crash_point())

    def _next_crash_point(self) -> CrashPoint | None:
        return self._crash_points.popleft() if self._crash_points else None

    def _close(self, host: Host) -> None:
        output = host.close()
        for event in _EVENTS:
            self.events[event] += output.count(event)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now. A restarted host needs the port that its clients know."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]
