"""Image bytes on their way into Blob Storage: checked, written, linked.

Nothing counts as an image before it was read to its end and found to be one: a blob that exists is a good image.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobSasPermissions, ContentSettings, UserDelegationKey, generate_blob_sas

from imagegen.errors import ImageUnusableError
from imagegen.generation import StoredImage
from imagegen.storage.clients import create_container, storage_errors
from imagegen.upstream.protocol import ImageBytes, ImageSource, ImageUrl

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from imagegen.storage.download import Downloader

_IN_MEMORY: Final = 8 * 2**20
"""Bytes of an image that are held in memory while it is checked; more goes to a temporary file."""
_PIECE: Final = 1 << 18
_HEAD: Final = 16
_TAIL: Final = 16
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class ImageType:
    content_type: str
    extension: str


PNG: Final = ImageType("image/png", "png")
JPEG: Final = ImageType("image/jpeg", "jpg")
WEBP: Final = ImageType("image/webp", "webp")


def image_type(head: bytes) -> ImageType | None:
    """What these first bytes begin; None when it is none of the types that image models make."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    return None


def is_complete(kind: ImageType, *, head: bytes, tail: bytes, length: int) -> bool:
    """Whether the image reaches its own end, which counts where the server did not say how long it is."""
    if kind is PNG:
        return tail.endswith(_PNG_END)
    if kind is JPEG:
        return b"\xff\xd9" in tail
    return length >= int.from_bytes(head[4:8], "little") + 8


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that was read to its end. ``content`` stands at its start."""

    content: SpooledTemporaryFile[bytes]
    kind: ImageType
    length: int
    sha256: str
    md5: bytes


@contextmanager
def check_image(chunks: Iterable[bytes], *, limit: int, length: int | None) -> Generator[CheckedImage]:
    """Read an image to its end and check it on the way.

    Parameters
    ----------
    limit
        The most bytes that are taken.
    length
        How many bytes the server announced; None when it did not say.

    Raises
    ------
    ImageUnusableError
        When it is too long, cut short, or no image.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    total, head, tail = 0, b"", b""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as content:
        for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise ImageUnusableError("imageTooLarge", f"the image has more than {limit} bytes", again=False)
            if len(head) < _HEAD:
                head = (head + chunk[:_HEAD])[:_HEAD]
            tail = (tail + chunk[-_TAIL:])[-_TAIL:]
            sha256.update(chunk)
            md5.update(chunk)
            content.write(chunk)
        kind = image_type(head)
        if length is not None and total != length:
            raise ImageUnusableError("imageTruncated", f"{total} of {length} bytes arrived", again=True)
        if kind is None:
            raise ImageUnusableError("notAnImage", "what was sent is not PNG, JPEG or WebP", again=True)
        if length is None and not is_complete(kind, head=head, tail=tail, length=total):
            raise ImageUnusableError("imageTruncated", f"the image breaks off after {total} bytes", again=True)
        content.seek(0)
        yield CheckedImage(content, kind, total, sha256.hexdigest(), md5.digest())


class BlobImages:
    """The images container. Thread-safe.

    Parameters
    ----------
    limit
        The most bytes that one image may have.
    link_lifetime
        How long a link works that is made now.
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
        self._downloader = downloader
        self._limit = limit
        self._signer = _Signer(service, link_lifetime, clock)

    def copy(self, source: ImageSource, generation_id: str, index: int) -> StoredImage:
        if isinstance(source, ImageBytes):
            # In pieces, so that what is held beside it stays small: the rest of a long image goes to a file.
            pieces = (source.content[start : start + _PIECE] for start in range(0, len(source.content), _PIECE))
            try:
                with check_image(pieces, limit=self._limit, length=None) as image:
                    return self._write(image, generation_id, index, source.revised_prompt)
            except ImageUnusableError as error:  # these bytes will not change
                raise ImageUnusableError(error.code, error.message, again=False) from None
        if not isinstance(source, ImageUrl):
            raise TypeError(f"{type(source).__name__} has no image")
        with (
            self._downloader.open(source.url) as download,
            check_image(download.chunks, limit=self._limit, length=download.length) as image,
        ):
            return self._write(image, generation_id, index, source.revised_prompt)

    def _write(self, image: CheckedImage, generation_id: str, index: int, revised_prompt: str | None) -> StoredImage:
        name = f"{generation_id}/{index}.{image.kind.extension}"
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
        # Overwriting is harmless: the name says which image it is, and the bytes were checked.
        self._container.get_blob_client(name).upload_blob(
            cast("Any", image.content),
            length=image.length,
            overwrite=True,
            content_settings=ContentSettings(
                content_type=image.kind.content_type,
                content_md5=bytearray(image.md5),
                # An image never changes, and its name is not guessable.
                cache_control="private, max-age=31536000, immutable",
            ),
            metadata={"sha256": image.sha256},
        )

    def delete_all(self, generation_id: str) -> None:
        with storage_errors("delete images"):
            try:
                names = list(self._container.list_blob_names(name_starts_with=f"{generation_id}/"))
            except ResourceNotFoundError:
                return  # no container yet
            for name in names:
                with suppress(ResourceNotFoundError):  # somebody else removes them too
                    self._container.delete_blob(name)

    def blob_url(self, image: StoredImage) -> str:
        """Where the image is. Of no use without a credential."""
        return self._service.get_blob_client(image.container, image.blob).url

    def link(self, image: StoredImage) -> str:
        """A URL that lets anybody read this one image, for a time."""
        return f"{self.blob_url(image)}?{self._signer.sign(image)}"


class _Signer:
    """Read-only links, signed with the account's key or, where an identity is used, with a user delegation key."""

    # A key is asked for ahead of its use and for longer than a link lives, so that one call serves many links.
    # With the longest link lifetime, six days, under the seven days that Azure gives by its own clock.
    _KEY_LIFETIME: Final = timedelta(hours=23)
    _CLOCK_SKEW: Final = timedelta(minutes=15)

    def __init__(self, service: BlobServiceClient, lifetime: timedelta, clock: Callable[[], datetime]) -> None:
        self._service = service
        self._lifetime = lifetime
        self._clock = clock
        self._account_key = cast("str | None", getattr(service.credential, "account_key", None))
        self._lock = threading.Lock()
        self._delegation: tuple[UserDelegationKey, datetime] | None = None

    def sign(self, image: StoredImage) -> str:
        now = self._clock()
        return generate_blob_sas(
            account_name=cast("str", self._service.account_name),
            container_name=image.container,
            blob_name=image.blob,
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
                expiry = now + self._lifetime + self._KEY_LIFETIME
                with storage_errors("get user delegation key"):
                    key = self._service.get_user_delegation_key(now - self._CLOCK_SKEW, expiry)
                self._delegation = (key, expiry)
            return self._delegation[0]
