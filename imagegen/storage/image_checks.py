"""Checks of image bytes: type, completeness, size and hashes.

Bytes count as an image only after they were read to the end. So every blob in the images container is a good image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Final

from imagegen.errors import ImageUnusableError

_IN_MEMORY: Final = 8 * 2**20
"""Bytes of an image that the check keeps in memory. The rest goes to a temporary file."""
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
    """The type of an image with these first bytes; None for other types than image models make."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    return None


def is_complete(kind: ImageType, *, head: bytes, tail: bytes, length: int) -> bool:
    """Whether the image has its end marker or length. Checked if the server announced no length."""
    if kind is PNG:
        return tail.endswith(_PNG_END)
    if kind is JPEG:
        return b"\xff\xd9" in tail
    return length >= int.from_bytes(head[4:8], "little") + 8


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that was read to its end. The position of ``content`` is its start."""

    content: SpooledTemporaryFile[bytes]
    kind: ImageType
    length: int
    sha256: str
    md5: bytes


@contextmanager
def check_image(chunks: Iterable[bytes], *, limit: int, length: int | None) -> Generator[CheckedImage]:
    """Read an image to its end and check it.

    Parameters
    ----------
    limit
        The largest image, in bytes.
    length
        The number of bytes that the server announced; None if it announced none.

    Raises
    ------
    ImageUnusableError
        If it is too large, incomplete or not an image.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    total, head, tail = 0, b"", b""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as content:
        for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise ImageUnusableError("imageTooLarge", f"the image has more than {limit:,} bytes", again=False)
            if len(head) < _HEAD:
                head = (head + chunk[:_HEAD])[:_HEAD]
            tail = (tail + chunk[-_TAIL:])[-_TAIL:]
            sha256.update(chunk)
            md5.update(chunk)
            content.write(chunk)
        kind = image_type(head)
        if length is not None and total != length:
            raise ImageUnusableError("imageTruncated", f"{total:,} of {length:,} bytes arrived", again=True)
        if kind is None:
            raise ImageUnusableError("notAnImage", "the content is not PNG, JPEG or WebP", again=True)
        if length is None and not is_complete(kind, head=head, tail=tail, length=total):
            raise ImageUnusableError("imageTruncated", f"the image is incomplete after {total:,} bytes", again=True)
        content.seek(0)
        yield CheckedImage(content, kind, total, sha256.hexdigest(), md5.digest())
