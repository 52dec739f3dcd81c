"""Clients of the storage account: connections, retries, credential and errors."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry

from imagegen.connections import BoundedAdapter
from imagegen.errors import StorageUnavailableError
from imagegen.events import log_event
from imagegen.settings import Settings, SettingsError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

INVALID_CONNECTION_STRING: Final = (
    "AzureWebJobsStorage: is not a connection string with blob and queue endpoints. Copy one from the storage account."
)

_SINGLE_PUT: Final = 16 * 2**20
"""Bytes. A blob of up to this size is one transaction. A larger one is sent in blocks, which needs less memory."""
_BLOCK: Final = 8 * 2**20
CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 10
"""A request of a caller fails after three such times. The write of an image has a longer one."""
TRIES: Final = 3


def open_storage(
    settings: Settings, *, connections: int, credential: TokenCredential | None = None
) -> BlobServiceClient:
    """A thread-safe Blob Storage client for the account in the settings.

    Parameters
    ----------
    connections
        The number of threads that use the client at the same time.
    credential
        Replaces the identity in the settings.
    """
    options: dict[str, Any] = client_options(connections)
    options.update(max_single_put_size=_SINGLE_PUT, max_block_size=_BLOCK)
    if settings.storage_connection_string:
        try:
            return BlobServiceClient.from_connection_string(
                settings.storage_connection_string.get_secret_value(), **options
            )
        except ValueError:
            raise SettingsError(INVALID_CONNECTION_STRING) from None
    if settings.blob_service_uri is None:
        raise SettingsError("AzureWebJobsStorage: is missing. Set it to a connection string.")
    credential = credential or storage_credential(settings)
    return BlobServiceClient(settings.blob_service_uri, credential=credential, **options)


def client_options(connections: int) -> dict[str, Any]:
    """Connections, timeouts and retries of every storage client."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedAdapter(pool_maxsize=connections))
    # With a transport of our own, the SDK uses the timeouts of the transport only. Their default is 300 s.
    transport = RequestsTransport(
        session=session, session_owner=False, connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
    )
    return {
        "transport": transport,
        # By default the SDK waits 15 seconds before the first retry, which is longer than callers wait.
        "retry_policy": ExponentialRetry(
            initial_backoff=1, increment_base=2, retry_total=TRIES - 1, random_jitter_range=1
        ),
    }


def storage_credential(settings: Settings) -> TokenCredential:
    """The identity that signs in to storage without a connection string."""
    # Imported here: an app with a connection string starts faster without it.
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    if settings.storage_client_id:
        return ManagedIdentityCredential(client_id=settings.storage_client_id)
    return DefaultAzureCredential()


@contextmanager
def storage_errors(doing: str) -> Generator[None]:
    """Turn the SDK's errors into StorageUnavailableError and log them, without their messages, which may hold URLs.

    Catch errors that are outcomes (not found, a failed condition) inside.
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
    """Create a container if it does not exist. In Azure it exists, because the Bicep template creates it."""
    with storage_errors("create container"):
        try:
            container.create_container()
        except ResourceExistsError:
            pass
        else:
            log_event("storage.container_created", container=container.container_name)
