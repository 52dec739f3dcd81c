"""Log events: a name and fields on one line. They never hold a prompt, key, token or SAS."""

from __future__ import annotations

import logging

from imagegen.errors import ImageUnusableError

_LOGGER = logging.getLogger("imagegen")

# urllib3 logs malformed responses with their whole URL, and image URLs are credentials.
logging.getLogger("urllib3").setLevel(logging.ERROR)
# The Azure SDKs log two INFO records for each storage request, and the Python worker sets the root logger to INFO. The
# category "Azure" of host.json governs only the host's own clients.
logging.getLogger("azure").setLevel(logging.WARNING)


def log_event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log ``name key=value …`` without the fields that are None."""
    words = [name, *(f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None)]
    _LOGGER.log(level, "%s", " ".join(words), stacklevel=2)


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not any(mark in text for mark in ' ="') and text
    return text if plain else repr(text)


def log_unusable_image(generation_id: str, index: int, error: ImageUnusableError) -> None:
    """Log that one image could not be stored this time."""
    log_event(
        "image.unusable",
        level=logging.WARNING,
        id=generation_id,
        index=index,
        code=error.code,
        reason=error.message,
        retryable=error.again,
    )


def log_stuck(generation_id: str, error: Exception) -> None:
    """Log that a defect of the app stopped the work on a generation for now."""
    name, place = type(error).__name__, place_of(error)
    log_event("generation.stuck", level=logging.ERROR, id=generation_id, error=name, at=place)


def place_of(error: BaseException) -> str | None:
    """File and line where the error was raised. Its message is not logged: it may hold a prompt or a URL."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else None
