"""The listing of the active records.

``ContainerClient.list_blobs`` needs 3 s of CPU for 10,000 blobs, nearly all of it for objects that this app does not
use. This module sends the same request through a pipeline of azure-core, and reads the XML itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote, unquote, urlencode
from xml.etree import ElementTree

from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HttpLoggingPolicy, SansIOHTTPPolicy
from azure.core.rest import HttpRequest

from imagegen.generation import parse_time
from imagegen.lifecycle.ports import ActiveEntry
from imagegen.storage.clients import client_options

if TYPE_CHECKING:
    from azure.core.rest import HttpResponse
    from azure.storage.blob import BlobServiceClient

_SCOPE: Final = "https://storage.azure.com/.default"
_VERSION: Final = "2021-12-02"
"""Of the Blob service's REST API: any version has this request."""
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_CONNECTIONS: Final = 16
"""For the slot, and for callers who list at the same time."""


class ActiveListing:
    """Lists the blobs under a prefix as active records. Thread-safe."""

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._url = f"{service.url.rstrip('/')}/{quote(container)}"
        options = client_options(_CONNECTIONS)
        # With the key of an account, the SDK's credential is a policy that signs requests.
        credential = service.credential
        signs = isinstance(credential, SansIOHTTPPolicy)
        policies: list[Any] = [
            options["retry_policy"],
            credential if signs else BearerTokenCredentialPolicy(credential, _SCOPE),
            HttpLoggingPolicy(),
        ]
        self._client = cast("Any", PipelineClient(service.url, policies=policies, transport=options["transport"]))

    def entries(self, prefix: str) -> Iterator[ActiveEntry]:
        """All records under the prefix, by name. One request for each 5,000.

        Raises
        ------
        ResourceNotFoundError
            When the container does not exist.
        HttpResponseError
            When storage answers with another error.
        """
        marker = ""
        while True:
            try:
                page = ElementTree.fromstring(self._get(prefix, marker))  # noqa: S314 - from the app's own account
            except ElementTree.ParseError:
                raise ServiceResponseError("the listing is not XML") from None
            for blob in page.iter("Blob"):
                yield _entry(blob, prefix)
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return

    def _get(self, prefix: str, marker: str) -> bytes:
        query = {"restype": "container", "comp": "list", "include": "metadata", "prefix": prefix}
        if marker:
            query["marker"] = marker
        headers = {"x-ms-version": _VERSION, "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True)}
        request = HttpRequest("GET", f"{self._url}?{urlencode(query)}", headers=headers)
        response: HttpResponse = self._client.send_request(request)
        if response.status_code == 200:
            return response.content
        error_class = ResourceNotFoundError if response.status_code == 404 else HttpResponseError
        error = cast("Any", error_class(response=cast("Any", response)))
        error.error_code = response.headers.get("x-ms-error-code")  # as the errors of the SDK have it, for the log
        raise error


def _entry(blob: ElementTree.Element, prefix: str) -> ActiveEntry:
    name = etag = ""
    metadata: dict[str, str] = {}
    for part in blob:  # faster than a search for each part
        match part.tag:
            case "Name":
                name = part.text or ""
                name = unquote(name) if part.get("Encoded") == "true" else name
            case "Properties":
                etag = (part.findtext("Etag") or "").strip('"')
            case "Metadata":
                metadata = {item.tag.lower(): item.text or "" for item in part}
            case _:
                pass
    waits_for = metadata.get("waits_for")
    return ActiveEntry(
        id=name.removeprefix(prefix),
        etag=f'"{etag}"',
        # A record without a valid time is due now, so that it does not stay unnoticed.
        due=parse_time(metadata.get("due", "")) or _EARLIEST,
        status=metadata.get("status", ""),
        waits_for=unquote(waits_for) if waits_for else None,
        queued="queued" in metadata,
        deadline=parse_time(metadata.get("deadline", "")) if waits_for else None,
    )
