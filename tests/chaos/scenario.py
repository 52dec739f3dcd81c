"""The schedule of a chaos run: which generations, which faults, which kills. A seed repeats it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from imagegen.crash_points import CrashPoint


class Mode(StrEnum):
    KILL = "kill"
    """SIGKILL at random moments and at crash points."""
    DRAIN = "drain"
    """SIGTERM every 30 seconds and SIGKILL 5 seconds later, as when the platform scales in."""


class Ending(StrEnum):
    """What the caller does after the start."""

    NONE = "none"
    CANCEL = "cancel"
    DELETE = "delete"
    """Wait for the outcome, then delete the generation."""


DRAIN_EVERY: Final = 30.0
DRAIN_GRACE: Final = 5.0
"""Seconds."""

POLLED_MODEL: Final = "operations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seed: int
    generations: int = 100
    kills: int = 10
    crashes: int = len(CrashPoint)
    """Lives of a host that have a crash point."""
    hosts: int = 3
    seconds: float = 90
    """Time over which the starts and the kills are spread."""
    mode: Mode = Mode.KILL
    repeat_lost_calls: bool = False
    patience: float = 300
    """Seconds from the last fault until every generation must be terminal."""
    real_time: bool = False
    """Wait for the claims of killed hosts, instead of making them expire."""


@dataclass(frozen=True, slots=True)
class Start:
    """One generation."""

    at: float
    """Seconds after the beginning."""
    key: str
    model: str
    prompt: str
    n: int
    size: str
    host: int
    """Index of the host that gets the first request."""
    ending: Ending
    impatient: bool
    """Whether the client closes its first connection without reading the response."""
    repeated: bool
    """Whether the client sends the request again after it was accepted."""


@dataclass(frozen=True, slots=True)
class Kill:
    at: float
    host: int
    grace: float | None
    """Seconds from SIGTERM to SIGKILL. None: no SIGTERM."""


@dataclass(frozen=True, slots=True)
class Scenario:
    starts: tuple[Start, ...]
    kills: tuple[Kill, ...]
    crash_points: tuple[CrashPoint, ...]
    """The crash point of each life of a host, in the order of their starts."""


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    most_images: int
    size: str
    faults: tuple[tuple[str, ...], ...]
    """A generation gets faults of different stages, at most one of each."""


# Every fault ends by itself, so that the generation can still succeed. Words that end a generation are left out.
_SUBMIT = (
    "[submit-429:1]",
    "[submit-429:2][retry-after:1]",
    "[submit-500:2]",
    "[submit-hang:3:1]",
    "[submit-drop:1]",
)
_POLL = (
    "[poll-404:1]",
    "[poll-429:1]",
    "[poll-500:2]",
    "[poll-garbage:1]",
    "[poll-drop:1]",
    "[poll-retry-date]",
    "[poll-no-retry-after]",
    "[no-created]",
    "[seconds:6]",
)
_IMAGE = (
    "[image-404:1]",
    "[image-403:1]",
    "[image-500:1]",
    "[image-truncated:1]",
    "[image-html:1]",
    "[image-empty:1]",
    "[image-slow:2]",
    "[image-jpeg]",
    "[image-webp]",
)
_REFUSED_CALL = (
    "[call-429:1][retry-after:1]",
    "[call-429:1][call-no-retry-after]",
    "[call-500:1]",
    "[call-503:2]",
    "[seconds:5]",
)
# The app cannot know whether these were billed.
_LOST_CALL = ("[call-408:1]", "[call-502:1]", "[call-drop:1]", "[call-cut:1]", "[call-hang:4:1]")

_CALL = (_REFUSED_CALL, _LOST_CALL)
_MODELS: Final = (
    _Model(POLLED_MODEL, 3, "256x256", (_SUBMIT, _POLL, _IMAGE)),
    _Model("gpt-image-2", 3, "1024x1024", _CALL),
    _Model("gpt-image-1.5", 3, "1024x1024", _CALL),
    _Model("dall-e-3", 1, "1024x1024", (*_CALL, _IMAGE)),
    _Model("FLUX.2-pro", 3, "256x256", _CALL),
    _Model("MAI-Image-2.5", 1, "768x768", _CALL),
)
_FAULT_OF_A_STAGE: Final = 0.25
"""Probability."""
_CANCELED, _DELETED, _IMPATIENT, _REPEATED = 0.05, 0.1, 0.1, 0.1


def plan(options: Options) -> Scenario:
    """Make every choice of a run from its seed."""
    choose = random.Random(options.seed)
    # Half of the generations are of the polled model: it has the most stages.
    models = [choose.choice((_MODELS[0], choose.choice(_MODELS[1:]))) for _ in range(options.generations)]
    starts = sorted(
        (_start(index, model, options, choose) for index, model in enumerate(models)), key=lambda one: one.at
    )
    return Scenario(tuple(starts), _kills(options, choose), _crash_points(options, choose))


def _start(index: int, model: _Model, options: Options, choose: random.Random) -> Start:
    faults = [choose.choice(stage) for stage in model.faults if choose.random() < _FAULT_OF_A_STAGE]
    ending = choose.choices(tuple(Ending), (1 - _CANCELED - _DELETED, _CANCELED, _DELETED))[0]
    return Start(
        at=choose.uniform(0, options.seconds),
        key=f"chaos-{options.seed}-{index}",
        model=model.name,
        prompt=f"chaos {options.seed} number {index} {''.join(faults)}",
        n=choose.randint(1, model.most_images),
        size=model.size,
        host=choose.randrange(options.hosts),
        ending=ending,
        impatient=choose.random() < _IMPATIENT,
        repeated=choose.random() < _REPEATED,
    )


def _kills(options: Options, choose: random.Random) -> tuple[Kill, ...]:
    if options.mode is Mode.DRAIN:
        times = [DRAIN_EVERY * turn for turn in range(1, int(options.seconds // DRAIN_EVERY) + 1)]
        return tuple(Kill(at, choose.randrange(options.hosts), DRAIN_GRACE) for at in times)
    times = sorted(choose.uniform(1, options.seconds) for _ in range(options.kills))
    return tuple(Kill(at, choose.randrange(options.hosts), None) for at in times)


def _crash_points(options: Options, choose: random.Random) -> tuple[CrashPoint, ...]:
    if options.mode is Mode.DRAIN:
        return ()
    points: list[CrashPoint] = []
    while len(points) < options.crashes:
        points += choose.sample(tuple(CrashPoint), len(CrashPoint))
    return tuple(points[: options.crashes])
