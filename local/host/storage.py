"""The host's storage clients."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

from azure.storage.blob import ContainerClient
from azure.storage.queue import QueueClient

from local.host.settings import ConfigurationError

_CONNECTION = "AzureWebJobsStorage"
# Listeners retry by themselves, and the end of the host must not wait for a long series of retries.
_OPTIONS: dict[str, Any] = {
    "retry_total": 1,
    "retry_backoff_factor": 0.2,
    "initial_backoff": 1,
    "connection_timeout": 5,
    "read_timeout": 10,
}


def hosts_container(environ: Mapping[str, str]) -> ContainerClient:
    """Return the container for the leases and timers of every host."""
    with _connection(environ) as connection:
        return ContainerClient.from_connection_string(connection, "azure-webjobs-hosts", **_OPTIONS)


def queue(environ: Mapping[str, str], name: str) -> QueueClient:
    with _connection(environ) as connection:
        return QueueClient.from_connection_string(connection, name, **_OPTIONS)


@contextlib.contextmanager
def _connection(environ: Mapping[str, str]) -> Generator[str]:
    try:
        yield environ.get(_CONNECTION, "")
    except ValueError:  # its text may contain a part of the key
        raise ConfigurationError(
            f"{_CONNECTION} is not a connection string; timer and queue triggers need one. "
            f"The local host does not support identities ({_CONNECTION}__...)."
        ) from None
