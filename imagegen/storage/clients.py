"""Blob Storage: one client, its connections and credential, and what its errors mean."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry
from requests.adapters import HTTPAdapter

from imagegen.errors import StorageUnavailableError
from imagegen.events import log_event
from imagegen.settings import Settings, SettingsError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_SINGLE_PUT = 16 * 2**20
"""Bytes. A blob up to this size is one transaction; a larger one goes in blocks, so that less is held in memory."""
_BLOCK = 8 * 2**20
_CONNECT_SECONDS = 5
_READ_SECONDS = 30


def open_storage(
    settings: Settings, *, connections: int, credential: TokenCredential | None = None
) -> BlobServiceClient:
    """A thread-safe client for the account of the app.

    Parameters
    ----------
    connections
        How many threads use it at once.
    credential
        Instead of the identity that the settings name.
    """
    options: dict[str, Any] = client_options(connections)
    options.update(max_single_put_size=_SINGLE_PUT, max_block_size=_BLOCK)
    if settings.storage_connection_string:
        try:
            return BlobServiceClient.from_connection_string(
                settings.storage_connection_string.get_secret_value(), **options
            )
        except ValueError:
            raise SettingsError("AzureWebJobsStorage: is not a storage connection string") from None
    if settings.blob_service_uri is None:
        raise SettingsError("AzureWebJobsStorage: is missing")
    return BlobServiceClient(settings.blob_service_uri, credential=credential or identity(settings), **options)


def client_options(connections: int) -> dict[str, Any]:
    """How every storage client of the app connects and retries."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    # Where a transport is given, the SDK takes its time-outs, and no others: without these it waits for 300 s.
    transport = RequestsTransport(
        session=session, session_owner=False, connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS
    )
    return {
        "transport": transport,
        # The SDK's own first wait is 15 seconds: longer than our callers wait.
        "retry_policy": ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=2, random_jitter_range=1),
    }


def identity(settings: Settings) -> TokenCredential:
    """What signs in to storage where there is no connection string."""
    # Imported here: with a connection string nobody pays for it at cold start.
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    if settings.storage_client_id:
        return ManagedIdentityCredential(client_id=settings.storage_client_id)
    return DefaultAzureCredential()


@contextmanager
def storage_errors(doing: str) -> Generator[None]:
    """Turn what the SDK raises inside into StorageUnavailableError, and log why. Its text may hold URLs: not shown.

    An error that means something to the caller (not found, a lost condition) must be caught inside.
    """
    try:
        yield
    except AzureError as error:
        log_event(
            "storage.unavailable",
            level=logging.ERROR,
            doing=doing,
            error=type(error).__name__,
            code=getattr(error, "error_code", None),
            status=error.status_code if isinstance(error, HttpResponseError) else None,
        )
        raise StorageUnavailableError(doing) from None


def create_container(container: ContainerClient) -> None:
    """Make a container that is not there. In Azure, Bicep has made it; on a developer's machine nobody has."""
    with storage_errors("create container"):
        try:
            container.create_container()
        except ResourceExistsError:
            pass
        else:
            log_event("storage.container_created", container=container.container_name)
