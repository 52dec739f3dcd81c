"""Authentication: a known api-key, or a bearer token of the right scope. No signature is checked."""

import base64
import hmac
import json
from collections.abc import Sequence
from typing import Final, Literal, cast

from starlette.datastructures import Headers

from local.emulator.errors import ServiceError

Authorization = Literal["api-key", "bearer"]

_AUDIENCES: Final = frozenset({"https://cognitiveservices.azure.com", "https://ai.azure.com"})
"""Of the scopes that an app may ask for."""

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
    if _has_scope(_bearer_token(headers)):
        return "bearer"
    raise ServiceError(401, "401", _NOT_AUTHORIZED)


def authorize_bearer(headers: Headers, keys: Sequence[str]) -> None:
    """Accept a bearer token that is a known key, or an Entra token of the right scope."""
    token = _bearer_token(headers)
    if not token:
        raise ServiceError(401, "401", _NOT_AUTHORIZED)
    if _is_known(token, keys) or _has_scope(token):
        return
    raise ServiceError(401, "401", _NOT_AUTHORIZED) if token.count(".") == 2 else wrong_key()


def wrong_key() -> ServiceError:
    return ServiceError(401, "401", _WRONG_KEY)


def _bearer_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _has_scope(token: str) -> bool:
    """Whether the audience of an Entra token (a JWT) is that of the service."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return False
    return isinstance(claims, dict) and str(cast("dict[str, object]", claims).get("aud", "")).rstrip("/") in _AUDIENCES


def _is_known(key: str, keys: Sequence[str]) -> bool:
    return any(hmac.compare_digest(key.encode(), known.encode()) for known in keys)
