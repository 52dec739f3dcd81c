"""Named moments at which `make chaos` kills the process. Inert unless ``IMAGEGEN_TEST_CRASH_POINTS`` is set."""

from __future__ import annotations

import os
import random
import signal
import sys
from enum import StrEnum


class CrashPoint(StrEnum):
    """A moment between two steps that must survive a crash."""

    KEY_CLAIMED = "keyClaimed"
    RECORD_CREATED = "recordCreated"
    MESSAGE_SENT = "messageSent"
    RECORD_WRITTEN = "recordWritten"
    OPERATION_SUBMITTED = "operationSubmitted"
    OPERATION_POLLED = "operationPolled"
    CALL_CLAIMED = "callClaimed"
    CALL_ANSWERED = "callAnswered"
    COPY_CLAIMED = "copyClaimed"
    IMAGE_STORED = "imageStored"
    PAUSE_WRITTEN = "pauseWritten"
    OUTCOME_WRITTEN = "outcomeWritten"
    RECORD_DROPPED = "recordDropped"
    IMAGES_DELETED = "imagesDeleted"
    KEY_DROPPED = "keyDropped"


def _probabilities(text: str) -> dict[str, float]:
    """From ``name=probability,…``."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {CrashPoint(name): float(probability) for name, _, probability in pairs}


_PROBABILITIES = _probabilities(os.environ.get("IMAGEGEN_TEST_CRASH_POINTS", ""))


def crash_point(point: CrashPoint) -> None:
    """Kill this process, with the probability that the environment sets for this point."""
    if _PROBABILITIES and random.random() < _PROBABILITIES.get(point, 0.0):  # noqa: S311 - no secret
        sys.stderr.write(f"crash point {point}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
