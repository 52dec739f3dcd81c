"""Images in Blob Storage: checked, written and linked."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobSasPermissions, ContentSettings, UserDelegationKey, generate_blob_sas

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.generation import StoredImage
from imagegen.storage.blob_requests import BlobRequests
from imagegen.storage.clients import create_container, storage_errors
from imagegen.storage.image_checks import CheckedImage, check_image
from imagegen.upstream.protocol import ImageBytes, ImageSource, ImageUrl

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from imagegen.storage.download import Downloader

_PIECE: Final = 1 << 18
"""Bytes."""
_SMALL: Final = 4 * 2**20
"""Bytes. An image of up to this size is sent from memory, in one small request. The SDK sends a larger one from its
file."""
_CACHE_CONTROL: Final = "private, max-age=31536000, immutable"
"""An image never changes, and its name cannot be guessed."""
_READ_SECONDS: Final = 30
"""Time for storage to answer the write of an image."""


class BlobImages:
    """The images container. Thread-safe.

    Parameters
    ----------
    limit
        The largest image, in bytes.
    link_lifetime
        How long a new link works.
    """

    def __init__(
        self,
        service: BlobServiceClient,
        container: str,
        *,
        downloader: Downloader,
        limit: int,
        link_lifetime: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._service = service
        self._container = service.get_container_client(container)
        self._requests = BlobRequests(service, container)
        self._downloader = downloader
        self._limit = limit
        self._signer = _LinkSigner(service, link_lifetime, clock)

    def copy(self, source: ImageSource, generation_id: str, index: int, call: int = 0) -> StoredImage:
        # A repeated call has names of its own: the first one may still be storing its images.
        name = f"{generation_id}/{index}" + (f"-{call}" if call else "")
        if isinstance(source, ImageBytes):
            # In pieces, so that the check does not hold a second copy of a large image in memory.
            pieces = (source.content[start : start + _PIECE] for start in range(0, len(source.content), _PIECE))
            try:
                with check_image(pieces, limit=self._limit, length=None) as image:
                    return self._write(image, name, source.revised_prompt)
            except ImageUnusableError as error:  # the same bytes would fail again
                raise ImageUnusableError(error.code, error.message, again=False) from None
        if not isinstance(source, ImageUrl):
            raise TypeError(f"{type(source).__name__} is not an image")
        with (
            self._downloader.open(source.url) as download,
            check_image(download.chunks, limit=self._limit, length=download.length) as image,
        ):
            return self._write(image, name, source.revised_prompt)

    def _write(self, image: CheckedImage, stem: str, revised_prompt: str | None) -> StoredImage:
        name = f"{stem}.{image.kind.extension}"
        with storage_errors("write image"):
            try:
                self._put(name, image)
            except ResourceNotFoundError:
                create_container(self._container)
                image.content.seek(0)
                self._put(name, image)
        return StoredImage(
            container=self._container.container_name,
            blob=name,
            content_type=image.kind.content_type,
            content_length=image.length,
            sha256=image.sha256,
            revised_prompt=revised_prompt,
        )

    def _put(self, name: str, image: CheckedImage) -> None:
        # Overwriting is harmless: the name belongs to this image of this call alone, and the bytes were checked.
        if image.length <= _SMALL:
            headers = {
                "x-ms-blob-type": "BlockBlob",
                "x-ms-blob-content-type": image.kind.content_type,
                "x-ms-blob-content-md5": base64.b64encode(image.md5).decode(),
                "x-ms-blob-cache-control": _CACHE_CONTROL,
                "x-ms-meta-sha256": image.sha256,
            }
            content = image.content.read()
            self._requests.send("PUT", name, content=content, headers=headers, read_seconds=_READ_SECONDS)
            return
        self._container.get_blob_client(name).upload_blob(
            cast("Any", image.content),
            length=image.length,
            overwrite=True,
            content_settings=ContentSettings(
                content_type=image.kind.content_type,
                content_md5=bytearray(image.md5),
                cache_control=_CACHE_CONTROL,
            ),
            metadata={"sha256": image.sha256},
            read_timeout=_READ_SECONDS,
        )

    def delete_all(self, generation_id: str, *, keep: Collection[str] = ()) -> None:
        with storage_errors("delete images"):
            try:
                names = list(self._container.list_blob_names(name_starts_with=f"{generation_id}/"))
            except ResourceNotFoundError:
                return  # no container yet
            for name in set(names) - set(keep):
                with suppress(ResourceNotFoundError):  # another worker deletes them too
                    self._container.delete_blob(name)

    def blob_url(self, image: StoredImage) -> str:
        """The URL of the blob. It needs a credential."""
        return self._service.get_blob_client(image.container, image.blob).url

    def link(self, image: StoredImage) -> str:
        """A URL with a signature that opens this image for a limited time.

        Raises
        ------
        StorageUnavailableError
            When the link cannot be signed now.
        """
        return f"{self.blob_url(image)}?{self._signer.sign(image.container, image.blob)}"

    def check_links(self) -> None:
        """Raise StorageUnavailableError when no link can be signed now."""
        self._signer.sign(self._container.container_name, "any")


class _LinkSigner:
    """Signs read-only links, with the key of the account or, for an identity, with a user delegation key."""

    # The delegation key lives longer than a link, so that one request serves many links. Together with the longest
    # link lifetime, six days, this stays below Azure's limit of seven days.
    _KEY_LIFETIME: Final = timedelta(hours=23)
    _CLOCK_SKEW: Final = timedelta(minutes=15)
    _RETRY: Final = timedelta(seconds=15)
    """Time after a failed request for a key in which links fail at once. A page of the list has hundreds of links."""

    def __init__(self, service: BlobServiceClient, lifetime: timedelta, clock: Callable[[], datetime]) -> None:
        self._service = service
        self._lifetime = lifetime
        self._clock = clock
        self._account_key = cast("str | None", getattr(service.credential, "account_key", None))
        self._lock = threading.Lock()
        self._delegation: tuple[UserDelegationKey, datetime] | None = None
        self._failed: datetime | None = None

    def sign(self, container: str, blob: str) -> str:
        now = self._clock()
        with storage_errors("sign link"):
            return generate_blob_sas(
                account_name=cast("str", self._service.account_name),
                container_name=container,
                blob_name=blob,
                account_key=self._account_key,
                user_delegation_key=None if self._account_key else self._delegation_key(now),
                permission=BlobSasPermissions(read=True),
                start=now - self._CLOCK_SKEW,
                expiry=now + self._lifetime,
                protocol="https" if self._service.url.startswith("https:") else "https,http",
            )

    def _delegation_key(self, now: datetime) -> UserDelegationKey:
        with self._lock:
            if self._delegation is None or self._delegation[1] < now + self._lifetime:
                self._delegation = self._new_delegation(now)
            return self._delegation[0]

    def _new_delegation(self, now: datetime) -> tuple[UserDelegationKey, datetime]:
        if self._failed and abs(self._clock() - self._failed) < self._RETRY:
            raise StorageUnavailableError("get user delegation key")
        expiry = now + self._lifetime + self._KEY_LIFETIME
        try:
            with storage_errors("get user delegation key"):
                key = self._service.get_user_delegation_key(now - self._CLOCK_SKEW, expiry)
        except StorageUnavailableError:
            self._failed = self._clock()
            raise
        self._failed = None
        return key, expiry
