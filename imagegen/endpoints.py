"""Endpoints as portals show them: the base URL that the app needs, and what the route after it states."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic_core import CoreSchema, core_schema

from imagegen.pasted import is_plain_name, refuse_blanks, refuse_paste_error
from imagegen.urls import AZURE_HOST, check_transport


class ImageApi(StrEnum):
    """The image APIs that an endpoint can offer."""

    OPERATIONS = "operations"
    IMAGES = "images"
    FLUX = "flux"
    MAI = "mai"


DEFAULT_VERSIONS: Final = {ImageApi.OPERATIONS: "2023-06-01-preview", ImageApi.FLUX: "preview"}
_API_VERSION: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest|v1"
MODEL_PATH: Final = r"[a-z0-9][a-z0-9.-]*"
LONGEST_NAME: Final = 128
"""Characters of a deployment."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The base URL of an image service. The other fields hold what its route and query stated."""

    base: str
    """Without a route. It may have a path, of a gateway or of a Foundry project."""
    route: str | None = None
    """The route that was taken off, such as ``/openai/v1``, with ``{deployment}`` for the name of a deployment."""
    apis: AbstractSet[ImageApi] = frozenset(ImageApi)
    """The APIs that have this route."""
    deployment: str | None = None
    model_path: str | None = None
    api_version: str | None = None
    is_v1: bool = False
    """Whether the route is the one without a dated API version."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> CoreSchema:
        """The validator of a setting. By default, pydantic would also accept the fields, without their checks."""
        return core_schema.no_info_plain_validator_function(_parsed, json_schema_input_schema=core_schema.str_schema())

    @property
    def without_statements(self) -> Endpoint:
        return Endpoint(self.base)


@dataclass(frozen=True, slots=True)
class _Route:
    pattern: str
    apis: AbstractSet[ImageApi] = frozenset(ImageApi)
    is_foreign: bool = False
    """Whether it belongs to an API that the app does not call, on Azure hosts only: a gateway may have a base path of
    this name. Its ``api-version`` is taken off too."""


_PORTAL: Final = r"([\w-]+\.)?portal\.azure\.(com|us|cn)|o?ai\.azure\.(com|us|cn)"
_IMAGES: Final = frozenset({ImageApi.IMAGES})
_OPERATIONS: Final = frozenset({ImageApi.OPERATIONS})
_ROUTES: Final = (
    _Route(r"/openai/(dalle/)?operations/images(/(?P<id>[^/]+))?", _OPERATIONS),
    _Route(r"/openai/images/generations:submit", _OPERATIONS),
    _Route(r"/openai/deployments/(?P<deployment>[^/]+)(/images(/generations|/edits)?)?", _IMAGES),
    _Route(r"/openai/(?P<v1>v1)/images(/generations|/edits)?", _IMAGES),
    # Foundry shows this base for a resource, whatever the API of the model.
    _Route(r"/openai/(?P<v1>v1)(/models)?", frozenset(ImageApi) - _OPERATIONS),
    _Route(r"/openai(/deployments|/models|/images(/generations)?)?"),
    _Route(r"/providers/blackforestlabs(/v1(/(?P<model_path>[^/]+))?)?", frozenset({ImageApi.FLUX})),
    _Route(r"/mai/v1(/images(/generations|/edits)?)?", frozenset({ImageApi.MAI})),
    _Route(r"/models(/images/generations)?", is_foreign=True),
)
_OTHER_ROUTE: Final = r"/images/(generations|edits|variations)(:submit)?|/(chat/)?completions|/responses|/embeddings"


def parse_endpoint(url: str) -> Endpoint:
    """Take a known route, and an ``api-version``, off an endpoint.

    Raises
    ------
    ValueError
        If the URL is not usable or states something that the app cannot follow. The message does not quote it.
    """
    check_transport(url)
    parts = urlsplit(url)
    _check_host(_host(parts))
    if parts.fragment:
        raise ValueError("has a fragment (#). Remove it.")
    version = _stated_version(parts.query)
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    endpoint = _without_route(parts, path, version)
    # The rest may have another route only if its path is one that no API has.
    if other := re.search(rf"({_OTHER_ROUTE})$", path, re.IGNORECASE) if endpoint.route is None else None:
        raise ValueError(f"ends with the route '{other[0].lower()}', which the app does not call. Remove the route.")
    if _is_azure(parts) and (rest := urlsplit(endpoint.base).path) and not re.fullmatch(r"/api/projects/[^/]+", rest):
        raise ValueError(
            f"has the path {_shown_path(rest)}, which is not one of an image API. Remove it: an Azure host has no path "
            "except /api/projects/NAME."
        )
    if endpoint.is_v1 and version and version[0].isdigit():
        raise ValueError(
            f"has the v1 route and the api-version '{version}', which exclude each other. Remove one of them."
        )
    return endpoint


def is_api_version(text: str) -> bool:
    """Whether an API can have this version, in lower case: a date of the calendar, or a name."""
    if not re.fullmatch(_API_VERSION, text):
        return False
    try:
        return not text[0].isdigit() or bool(date.fromisoformat(text[:10]))
    except ValueError:
        return False


def _check_host(host: str) -> None:
    if re.fullmatch(_PORTAL, host):
        raise ValueError("is the address of the portal. Copy the endpoint from Keys and Endpoint.")
    if host == "api.openai.com":
        raise ValueError(
            "is the API of OpenAI, which is another service. Use the endpoint of an Azure resource, or of a gateway."
        )


def _is_azure(parts: SplitResult) -> bool:
    return AZURE_HOST.fullmatch(_host(parts)) is not None


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".")


def _shown_path(path: str) -> str:
    """The path, without the parts that look like a key."""
    return "/".join(part if not part or is_plain_name(part) else "..." for part in path.split("/"))


def _stated_version(query: str) -> str | None:
    """The ``api-version``, if the query has nothing else."""
    pairs = parse_qsl(query, keep_blank_values=True)
    if other := next(((name, value) for name, value in pairs if name.lower() != "api-version"), None):
        name, value = other
        # Without a value, the name may be a key.
        found = f"'{name}'" if value and is_plain_name(name) else "a parameter"
        raise ValueError(
            f"has {found} in its query. Remove it: only api-version is accepted there. A key belongs in "
            "AZURE_OPENAI_API_KEY, or in the setting that apiKeySetting names."
        )
    versions = {value.lower() for _, value in pairs}
    if len(versions) > 1:
        raise ValueError("has more than one api-version in its query. Remove all but one.")
    version = versions.pop() if versions else None
    if version is not None and not is_api_version(version):
        raise ValueError("has an api-version in its query that is not an API version. Correct or remove it.")
    return version


def _without_route(parts: SplitResult, path: str, version: str | None) -> Endpoint:
    origin = f"{parts.scheme}://{parts.netloc}"
    for route in _ROUTES:
        found = re.search(f"{route.pattern}$", path, re.IGNORECASE)
        if found is None or (route.is_foreign and not _is_azure(parts)):
            continue
        removed = f"?api-version={version}" if version and route.is_foreign else ""
        stated = found.groupdict()
        return Endpoint(
            base=f"{origin}{path[: found.start()]}",
            route=f"{_template(found)}{removed}",
            apis=route.apis,
            deployment=_deployment(stated.get("deployment")),
            model_path=_model_path(stated.get("model_path")),
            api_version=None if route.is_foreign else version,
            is_v1=stated.get("v1") is not None,
        )
    return Endpoint(base=f"{origin}{path}", api_version=version)


def _template(found: re.Match[str]) -> str:
    """The route without its variable parts: they may be anything, also a secret that was pasted there by mistake."""
    text, start = found[0], found.start()
    spans = {name: found.span(name) for name in ("deployment", "model_path", "id") if found.groupdict().get(name)}
    for name, (first, end) in spans.items():  # a route has one of them at most
        text = f"{text[: first - start]}{{{name}}}{text[end - start :]}"
    return text


def _deployment(quoted: str | None) -> str | None:
    if quoted is None:
        return None
    name = unquote(quoted)
    try:
        refuse_paste_error(name)
        refuse_blanks(name)
    except ValueError as error:
        raise ValueError(f"has a deployment in its route that {error}") from None
    if len(name) > LONGEST_NAME:
        raise ValueError(f"has a deployment in its route with {len(name)} characters. The limit is {LONGEST_NAME}.")
    return name


def _model_path(stated: str | None) -> str | None:
    if stated and not re.fullmatch(MODEL_PATH, stated, re.IGNORECASE):
        raise ValueError("has a model path with characters that it cannot have. Remove the route from the endpoint.")
    return stated.lower() if stated else None


def _parsed(value: object) -> Endpoint:
    if not isinstance(value, str | Endpoint):
        raise ValueError("is not text. Put it in quotes.")  # noqa: TRY004 - pydantic does not catch a TypeError
    return parse_endpoint(value) if isinstance(value, str) else value
