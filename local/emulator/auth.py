"""Who may call: a known api-key, or any bearer token that is not empty."""

import hmac
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


def authorize(headers: Headers, keys: tuple[str, ...]) -> Authorization:
    """How the request proves itself; a wrong key is refused even beside a token."""
    given = headers.get("api-key")
    if given is not None:
        if any(hmac.compare_digest(given.encode(), key.encode()) for key in keys):
            return "api-key"
        raise wrong_key()
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return "bearer"
    raise ServiceError(401, "401", _NOT_AUTHORIZED)


def authorize_bearer(headers: Headers, keys: tuple[str, ...]) -> None:
    """For a service that takes a key as bearer: a key that is known, or what looks like Entra's (three parts)."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    token = given.strip()
    if scheme.lower() != "bearer" or not token:
        raise ServiceError(401, "401", _NOT_AUTHORIZED)
    if not any(hmac.compare_digest(token.encode(), key.encode()) for key in keys) and token.count(".") != 2:
        raise wrong_key()


def wrong_key() -> ServiceError:
    """Azure's answer to a key it does not know."""
    return ServiceError(401, "401", _WRONG_KEY)
