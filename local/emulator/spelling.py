"""How the APIs that answer with the picture word their errors: OpenAI's way, or Foundry's."""

from dataclasses import dataclass
from typing import Literal

from local.emulator.errors import ServiceError
from local.emulator.generation import filter_details

_FILTERED = {
    "contentFilter": "Your task failed as a result of our safety system.",
    "content_policy_violation": (
        "Your request was rejected as a result of our safety system. "
        "Your prompt may contain text that is not allowed by our safety system."
    ),
    "moderation_blocked": "Your request was rejected by the safety system. safety_violations=[violence].",
}


@dataclass(frozen=True)
class Spelling:
    """OpenAI's way: ``{"error": {code, message, type, param, inner_error?}}``."""

    rate_limited: str
    """The code of a 429."""
    inner: Literal["inner_error", "innererror"] = "inner_error"
    """Where a filter error has its details."""

    def error(
        self, status: int, code: str, message: str, *, param: str | None = None, kind: str = "invalid_request_error"
    ) -> ServiceError:
        """Any error of the service itself."""
        return ServiceError(status, code, message, more={"type": kind, "param": param})

    def unknown(self, name: str) -> ServiceError:
        """A field that the API does not have."""
        return self.error(400, "unknown_parameter", f"Unknown parameter: '{name}'.", param=name)

    def missing(self, name: str) -> ServiceError:
        """A field that it needs."""
        message = f"Missing required parameter: '{name}'."
        return self.error(400, "missing_required_parameter", message, param=name)

    def invalid(self, code: str, message: str, name: str | None) -> ServiceError:
        """A field with a value that it does not take."""
        return self.error(400, code, message, param=name)

    def filtered(self, code: str) -> ServiceError:
        """The refusal of the safety system, by one of its three names or another."""
        kind = "image_generation_user_error" if code == "moderation_blocked" else "invalid_request_error"
        error = self.error(400, code, _FILTERED.get(code, _FILTERED["contentFilter"]), kind=kind)
        error.more[self.inner] = filter_details()
        return error


@dataclass(frozen=True)
class FoundrySpelling(Spelling):
    """Foundry's way: ``{"error": {code, message, details?, innererror?}}``."""

    rate_limited: str = "RateLimitReached"
    inner: Literal["inner_error", "innererror"] = "innererror"
    invalid_code: str = "BadRequest"
    invalid_prefix: str = ""
    repeats: bool = False
    """Whether ``details`` says again what ``message`` says."""

    def error(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,  # noqa: ARG002 - OpenAI's
        kind: str = "",  # noqa: ARG002 - OpenAI's
    ) -> ServiceError:
        """Any error of the service itself."""
        return ServiceError(status, code, message, more={"details": message} if self.repeats else {})

    def unknown(self, name: str) -> ServiceError:
        """A field that the API does not have."""
        return self.error(400, self.invalid_code, f"Invalid parameters: {name}")

    def missing(self, name: str) -> ServiceError:
        """A field that it needs."""
        return self.error(400, self.invalid_code, f"Missing required parameter: '{name}'.")

    def invalid(self, code: str, message: str, name: str | None) -> ServiceError:  # noqa: ARG002 - OpenAI's
        """A field with a value that it does not take."""
        return self.error(400, self.invalid_code, self.invalid_prefix + message)
