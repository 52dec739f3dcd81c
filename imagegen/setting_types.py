"""The types of values that settings have, with an error for each value that cannot be meant."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Json, SecretStr

from imagegen.deployments import DeploymentEntry, matching
from imagegen.pasted import refuse_blanks
from imagegen.urls import origin_of

ANY_SCHEDULE: Final = "0 * * * * *"
_USE_SIX_FIELDS: Final = "Use NCRONTAB with six fields, seconds first."
_ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


def _schedule(text: str) -> str:
    fields = text.upper().split()
    if len(fields) != 6:
        raise ValueError(f"is not a schedule: it has {len(fields)} fields. {_USE_SIX_FIELDS}")
    day, month, weekday = fields[3:]
    # CronSim knows these; NCRONTAB does not. A step, as in */7, is no weekday.
    if re.search(r"[#?]|\bL|L\b|W\b", f"{day} {month.replace('JUL', '')} {weekday}") or re.search(
        r"(?<![/\d])7\b", weekday
    ):
        raise ValueError("uses L, W, #, ? or weekday 7, which NCRONTAB does not support. Leave these out; Sunday is 0.")
    try:
        CronSim(text, _ANY_TIME)
    except CronSimError as error:  # whose message names the field, such as "Bad minute"
        raise ValueError(f"has a {str(error).lower()} field. {_USE_SIX_FIELDS}") from None
    return text


def _list(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


def _origin(text: str) -> str:
    origin = origin_of(text)
    if urlsplit(text).path.strip("/"):
        raise ValueError("has a path. Use the scheme and host only.")
    return origin


def _host(text: str) -> str:
    host = text.lower().removeprefix("*")  # `*.example.com` is `.example.com`
    if not re.fullmatch(r"\.?[\w-]+(\.[\w-]+)*(:\d+)?|\[[0-9a-f:.]+\](:\d+)?", host):
        raise ValueError(
            "is not a host. Use the host only, without scheme and path; a dot in front means all below it."
        )
    return host


def _digits(text: object) -> object:
    if isinstance(text, str) and re.fullmatch(r"[0-9]{1,3}([ ,.'_\u00a0\u2019\u202f][0-9]{3})+", text):
        raise ValueError("has a separator between its digits. Use digits only.")
    return text


def _entries(text: object) -> object:
    if isinstance(text, str) and text.startswith("{"):
        raise ValueError("is one JSON object, not a list. Put it in square brackets.")
    if isinstance(text, str) and re.search(r"[\[{,:]\s*['`\u2018\u2019\u201c\u201d]", text):
        raise ValueError('has quotes that JSON does not know. Use double quotes (").')
    return text


def _not_empty(entries: tuple[DeploymentEntry, ...]) -> tuple[DeploymentEntry, ...]:
    if not entries:
        raise ValueError("is an empty list. Add a deployment, or remove the setting.")
    return entries


ContainerName = Annotated[
    str,
    AfterValidator(
        matching(
            r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*",
            "is not a container name. Use 3 to 63 lower-case letters, digits and single hyphens, with a letter or "
            "digit at both ends.",
        )
    ),
]
Scope = Annotated[
    str,
    AfterValidator(matching(r"https://\S+/\.default", "is not a scope. Use a URL that ends with /.default.")),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_list)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_list)]
Keys = Annotated[tuple[SecretStr, ...], BeforeValidator(_list)]
WholeNumber = Annotated[int, BeforeValidator(_digits)]
Word = Annotated[str, AfterValidator(refuse_blanks)]
Schedule = Annotated[str, AfterValidator(_schedule)]
DeploymentEntries = Annotated[
    Json[Annotated[tuple[DeploymentEntry, ...], AfterValidator(_not_empty)]], BeforeValidator(_entries)
]
