"""The types of values that settings have, with an error for each value that cannot be meant."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

from imagegen.deployments import DeploymentEntry, matching
from imagegen.json_text import JsonTextError, NumberTooLargeError, RepeatedKeysError, parse_strict_json
from imagegen.pasted import named, refuse_blanks, refuse_key_error, refuse_paste_error
from imagegen.urls import base_url_of, is_loopback, is_nearby, origin_of

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


def _keys(text: object) -> object:
    keys = _list(text)
    if keys == []:
        raise ValueError("has commas only. Write a key, or remove the setting.")
    return keys


def _key(key: SecretStr) -> SecretStr:
    refuse_paste_error(key.get_secret_value(), is_free=True)
    refuse_key_error(key.get_secret_value())
    return key


def _public_url(url: str, info: ValidationInfo) -> str:
    """The URL has the token of a generation in its query, so http must not leave the private network of a developer."""
    hostname = info.data.get("website_hostname")  # Azure sets it
    is_local = hostname is None or is_loopback(hostname.partition(":")[0])
    base = base_url_of(url, http_for=is_nearby if is_local else is_loopback)
    if not urlsplit(base).path:
        raise ValueError("has no path, and the routes of the app start with /api. Add /api.")
    return base


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


def _entries(given: object) -> object:
    if not isinstance(given, str):
        return given
    text = given.removeprefix("\ufeff").lstrip()  # the byte order mark of a file
    if text.startswith("{") and text.rstrip().endswith("}"):
        raise ValueError("is one JSON object, not a list. Put it in square brackets.")
    if re.search(r"[\[{,:]\s*['`\u2018\u2019\u201c\u201d]", text):
        raise ValueError('has quotes that JSON does not know. Use double quotes (").')
    return _parsed(text)


def _parsed(text: str) -> object:
    """The JSON. No message quotes it: a key may have been pasted there."""
    try:
        return parse_strict_json(text)
    except RepeatedKeysError as error:
        raise ValueError(f"has the field {named(error.keys[0])} twice in one object. Write it once.") from None
    except NumberTooLargeError:
        raise ValueError("has a number that is too large. Use a smaller one.") from None
    except JsonTextError as error:
        place = f" (line {error.line} column {error.column})" if error.position is not None else ""
        raise ValueError(f"is not valid JSON{place}. {error.hint}") from None


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
Keys = Annotated[tuple[Annotated[SecretStr, AfterValidator(_key)], ...], BeforeValidator(_keys)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
WholeNumber = Annotated[int, BeforeValidator(_digits)]
Word = Annotated[str, AfterValidator(refuse_blanks)]
Schedule = Annotated[str, AfterValidator(_schedule)]
DeploymentEntries = Annotated[tuple[DeploymentEntry, ...], AfterValidator(_not_empty), BeforeValidator(_entries)]
