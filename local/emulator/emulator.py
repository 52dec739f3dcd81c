"""The options of an emulator, and the state that all its APIs share."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import Request

from local.emulator.auth import DEFAULT_KEY
from local.emulator.faults import FaultCounts
from local.emulator.kept import Kept
from local.emulator.stats import Stats


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Options:
    """The options of the command line. Times are in seconds."""

    keys: Sequence[str] = (DEFAULT_KEY,)
    speed: float = 1.0  # multiplies the delays
    image_lifetime: float = 86_400.0
    location_path: Literal["documented", "example"] = "documented"
    seconds: float = 8.0  # duration of a direct call, before speed
    quota: int | None = None  # direct calls per deployment and window
    quota_window: float = 60.0
    quota_part: float | None = None  # seconds of the shorter window


@dataclass
class Emulator:
    """One running emulator."""

    options: Options = field(default_factory=Options)
    clock: Callable[[], float] = time.time  # unix seconds
    new_id: Callable[[], str] = _new_id
    stats: Stats = field(default_factory=Stats)
    fault_counts: FaultCounts = field(default_factory=FaultCounts)
    kept: Kept = field(default_factory=Kept)

    def reset(self) -> None:
        self.stats = Stats()
        self.fault_counts = FaultCounts()


def base_url(request: Request) -> str:
    """Return scheme and host as the caller wrote them."""
    host = request.headers.get("host") or request.url.netloc
    return f"{request.url.scheme}://{host}"
