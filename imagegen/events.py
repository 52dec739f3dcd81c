"""What the log says: events with fields, on one line each. Never a prompt, key, token or SAS among them."""

from __future__ import annotations

import logging

from imagegen.errors import ImageUnusableError

_LOGGER = logging.getLogger("imagegen")

# urllib3 warns of odd answers with the whole URL, and the URLs that we fetch are credentials.
logging.getLogger("urllib3").setLevel(logging.ERROR)


def log_event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log ``name key=value …``; a field that is None is left out."""
    words = [name, *(f"{key}={_one_word(value)}" for key, value in fields.items() if value is not None)]
    _LOGGER.log(level, "%s", " ".join(words))


def _one_word(value: object) -> str:
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


def place_of(error: BaseException) -> str | None:
    """Where it was raised. Its text is not logged: it may hold a prompt or a URL."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else None
