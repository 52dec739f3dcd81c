"""What is printed: the app's log records and the host's, at host.json's levels, on standard error."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from local.host.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("local.host")

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "information": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "none": logging.CRITICAL + 10,
}
# Chatty at Information, and not the app's words: each storage request of the host's own polling would be a record.
_QUIET = {"azure": logging.WARNING, "uvicorn": logging.WARNING}


def configure(levels: Mapping[str, str]) -> None:
    """Log to standard error at the levels of host.json's `logging.logLevel`."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name, level in {**_QUIET, **logger_levels(levels)}.items():
        logging.getLogger(name).setLevel(level)


def logger_levels(levels: Mapping[str, str]) -> dict[str, int]:
    """Translate categories of the Azure host to names of Python loggers; "" is the root.

    `default` and `Function...` are the app's own records, `Host...` is this host; any other category is taken for
    the logger of that name, in lower case: "Azure" is the Azure SDK.

    Raises
    ------
    ConfigurationError
        A level that does not exist.
    """
    named: dict[str, int] = {}
    # The default first, so that a more special category for the same logger wins whatever the file's order.
    for category, level in sorted(levels.items(), key=lambda item: item[0].lower() != "default"):
        if level.lower() not in _LEVELS:
            raise ConfigurationError(f"host.json: logging.logLevel.{category} is {level!r}, not one of {list(_LEVELS)}")
        named[_logger_name(category)] = _LEVELS[level.lower()]
    return named


def _logger_name(category: str) -> str:
    area = category.partition(".")[0].lower()
    if area in {"default", "function"}:
        return ""
    return logger.name if area == "host" else category.lower()
