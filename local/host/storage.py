"""How the host's own storage clients are set up."""

from __future__ import annotations

from typing import Any

# The listeners try again by themselves, and a stop must not wait for the SDK's own long series of retries.
CLIENT_OPTIONS: dict[str, Any] = {
    "retry_total": 1,
    "retry_backoff_factor": 0.2,
    "initial_backoff": 1,
    "connection_timeout": 5,
    "read_timeout": 10,
}
