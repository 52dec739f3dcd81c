"""The settings of `make start`: local.settings.json, and which services it needs on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient

from imagegen import settings as app_settings
from imagegen.settings import Settings
from imagegen.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "local.settings.json"
EXAMPLE = "local.settings.json.example"
EMULATOR_PORT = 7072
_DEVELOPMENT_STORAGE = "UseDevelopmentStorage=true"
STORAGE = "AzureWebJobsStorage"
ENDPOINT = "AZURE_OPENAI_ENDPOINT"
API_KEY = "AZURE_OPENAI_API_KEY"
_API = "AZURE_OPENAI_API"
_OF_APP = tuple(field.alias for field in Settings.model_fields.values() if field.alias)
"""The environment may set these even if the file does not."""
_LAST_PORT = 65535


class SettingsError(Exception):
    """An invalid setting. The message names the file or the environment, and the key."""


@dataclass(frozen=True)
class LocalSettings:
    """The settings of the app on this machine."""

    path: Path
    """local.settings.json, or the example if it does not exist."""
    values: Mapping[str, str]
    """The values of the file; environment variables override them."""
    from_shell: frozenset[str] = frozenset()
    """Settings that the environment sets."""

    @property
    def wants_azurite(self) -> bool:
        """Whether the settings ask for development storage.

        Raises
        ------
        SettingsError
            The value is neither development storage nor a connection string.
        """
        value = self.values.get(STORAGE, "").strip()
        if value in ("", _DEVELOPMENT_STORAGE):
            return True
        try:
            BlobServiceClient.from_connection_string(value).close()  # pyright: ignore[reportUnknownMemberType]
        except ValueError as error:  # do not show its text: it may contain a part of the key
            raise self._wrong(STORAGE, f'is neither "{_DEVELOPMENT_STORAGE}" nor a connection string') from error
        return False

    @property
    def wants_emulator(self) -> bool:
        """Whether the image service is the emulator: no endpoint, or the one of the example file.

        An endpoint of the environment is always used, even one on this machine.
        """
        value = self.values.get(ENDPOINT, "").strip()
        return not value or (ENDPOINT not in self.from_shell and _address(value) == EMULATOR_PORT)

    @property
    def endpoint(self) -> str:
        return self.values.get(ENDPOINT, "").strip()

    @property
    def endpoint_port(self) -> int | None:
        """The port of an endpoint on this machine, else None."""
        return _address(self.endpoint, with_path=True)

    @property
    def is_local_endpoint(self) -> bool:
        return self.wants_emulator or self.endpoint_port is not None

    @property
    def names_deployments(self) -> bool:
        names = ("AZURE_OPENAI_DEPLOYMENT", "IMAGE_DEPLOYMENTS")
        return any(self.values.get(name) for name in names) or _API in self.from_shell

    def place_of(self, name: str) -> str:
        return "environment" if name in self.from_shell else self.path.name

    def _wrong(self, key: str, problem: str) -> SettingsError:
        return SettingsError(f"{self.place_of(key)}: {key} {problem}")


def read(root: Path, environ: Mapping[str, str]) -> LocalSettings:
    """Read local.settings.json in `root`, or the example if it does not exist.

    Raises
    ------
    SettingsError
        The file cannot be read, is not JSON, or has no object "Values" of strings.
    """
    path = root / FILE
    if not path.exists():
        path = root / EXAMPLE
    values = _values(path)
    overridden = {name: environ[name] for name in (*values, *_OF_APP) if name in environ}
    from_shell = frozenset(name for name, value in overridden.items() if value)
    settings = LocalSettings(path, values | overridden, from_shell)
    if path.name == EXAMPLE and not settings.wants_emulator:
        # The API and the key of the example belong to the emulator. A server on this machine may have its key: it is no
        # secret, and without one the app would sign in with Entra ID.
        of_emulator = {_API} if settings.is_local_endpoint else {_API, API_KEY}
        kept = {name: value for name, value in settings.values.items() if name not in of_emulator - set(overridden)}
        return LocalSettings(path, kept, settings.from_shell)
    return settings


def check(environ: Mapping[str, str]) -> Settings:
    """Return the settings as the app reads them.

    Raises
    ------
    SettingsError
        The app would refuse them. The message has a line for each problem.
    """
    try:
        return app_settings.read_settings(environ)
    except app_settings.SettingsError as error:
        raise SettingsError(str(error)) from None


def _address(url: str, *, with_path: bool = False) -> int | None:
    """Return the port of a URL of this machine, else None. Also None for an invalid URL: the app reports it."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    is_here = is_loopback(parts.hostname or "") and (with_path or not parts.path.strip("/"))
    return port if is_here else None


def port(environ: Mapping[str, str], default: int) -> int:
    """Return PORT of the environment; 0 means any free port.

    Raises
    ------
    SettingsError
        PORT is not a port number.
    """
    text = environ.get("PORT") or str(default)
    if not (text.isascii() and text.isdecimal() and int(text) <= _LAST_PORT):
        raise SettingsError(f"PORT must be a number from 0 to {_LAST_PORT}, not {text!r}")
    return int(text)


def keys(environ: Mapping[str, str]) -> bool:
    """Return KEYS of the environment: whether the local host requires the function key, as Azure does.

    Raises
    ------
    SettingsError
        KEYS is neither 0 nor 1.
    """
    text = environ.get("KEYS") or "0"
    if text not in ("0", "1"):
        raise SettingsError(f"KEYS must be 1 (the app requires a function key) or 0, not {text!r}")
    return text == "1"


def _values(path: Path) -> dict[str, str]:
    content = _object(_json(path), path.name)
    if "Values" not in content:
        raise SettingsError(f'{path.name}: "Values" is missing: see {EXAMPLE}')
    values = _object(content["Values"], f'{path.name}: "Values"')
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingsError(f"{path.name}: Values.{name} must be a string in quotes, not {_kind(value)}")
    return cast("dict[str, str]", values)


def _json(path: Path) -> object:
    try:
        # Editors on Windows write a byte order mark.
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path.name}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path.name} is not UTF-8: save it as UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: {error.strerror}") from error


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{where} must be a JSON object, not {_kind(value)}")
    return cast("dict[str, Any]", value)


def _kind(value: object) -> str:
    """Return the JSON type. The value itself may be a secret."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names: tuple[tuple[type, str], ...] = ((dict, "an object"), (list, "a list"), (str, "a string"))
    return next((name for kind, name in names if isinstance(value, kind)), "a number")
