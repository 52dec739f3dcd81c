"""What every API of the emulator shares."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from starlette.requests import Request
from starlette.routing import Route

from local.emulator.auth import DEFAULT_KEY
from local.emulator.faults import FaultCounts
from local.emulator.stats import Stats

LocationPath = Literal["documented", "example"]


def _new_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Options:
    """What the command line sets."""

    keys: tuple[str, ...] = (DEFAULT_KEY,)
    speed: float = 1.0  # delays are multiplied by it; 0: none
    image_lifetime: float = 86_400.0  # seconds an image URL is good for
    location_path: LocationPath = "documented"
    seconds: float = 8.0  # what a call takes that answers with the picture, before speed
    quota: int | None = None  # such calls in each window and for each deployment; None: no limit
    quota_window: float = 60.0  # seconds


@dataclass
class Emulator:
    """The state and the settings of one running emulator."""

    options: Options = field(default_factory=Options)
    clock: Callable[[], float] = time.time  # unix seconds
    new_id: Callable[[], str] = _new_id
    stats: Stats = field(default_factory=Stats)
    fault_counts: FaultCounts = field(default_factory=FaultCounts)

    def reset(self) -> None:
        """Counters as at the start; each API forgets for itself."""
        self.stats = Stats()
        self.fault_counts = FaultCounts()


class Api(Protocol):
    """One API: its routes, and how it forgets."""

    def routes(self) -> list[Route]:
        """What it serves."""
        ...

    def clear(self) -> None:
        """Forget everything, as a restart does."""
        ...


def base_url(request: Request) -> str:
    """Scheme and host as the caller wrote them."""
    host = request.headers.get("host") or request.url.netloc
    return f"{request.url.scheme}://{host}"


def raw_target(request: Request) -> str:
    """Path and query exactly as received."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
