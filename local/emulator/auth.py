"""Authentication: a known api-key, or any bearer token that is not empty."""

import hmac
from collections.abc import Sequence
from typing import Literal

from starlette.datastructures import Headers

from local.emulator.errors import ServiceError

Authorization = Literal["api-key", "bearer"]

DEFAULT_KEY = "local-openai-key"

_WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource."
)
_NOT_AUTHORIZED = (
    "Unauthorized. Access token is missing, invalid, audience is incorrect "
    "(https://cognitiveservices.azure.com), or have expired."
)


def authorize(headers: Headers, keys: Sequence[str]) -> Authorization:
    """Return the kind of credential. A wrong key is refused even if the request has a token too."""
    key = headers.get("api-key")
    if key is not None:
        if _is_known(key, keys):
            return "api-key"
        raise wrong_key()
    if _bearer_token(headers):
        return "bearer"
    raise ServiceError(401, "401", _NOT_AUTHORIZED)


def authorize_bearer(headers: Headers, keys: Sequence[str]) -> None:
    """Accept a bearer token that is a known key, or that has three parts like an Entra token."""
    token = _bearer_token(headers)
    if not token:
        raise ServiceError(401, "401", _NOT_AUTHORIZED)
    if not _is_known(token, keys) and token.count(".") != 2:
        raise wrong_key()


def wrong_key() -> ServiceError:
    return ServiceError(401, "401", _WRONG_KEY)


def _bearer_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_known(key: str, keys: Sequence[str]) -> bool:
    return any(hmac.compare_digest(key.encode(), known.encode()) for known in keys)
