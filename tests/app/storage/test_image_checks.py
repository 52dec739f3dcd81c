"""Checks of image bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from imagegen.errors import ImageUnusableError
from imagegen.storage.image_checks import JPEG, PNG, WEBP, ImageType, check_image, image_type, is_complete
from tests.pictures import picture

FORMS = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP}
LIMIT = 1 << 20


def chunked(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (picture("PNG")[:16], PNG),
        (picture("JPEG")[:16], JPEG),
        (picture("WEBP")[:16], WEBP),
        (b"\xff\xd8\xff\xe1\x00\x10Exif", JPEG),
        (b"", None),
        (b"\x89PNG", None),
        (b"\x89PNG\n\x1a\n\x00", None),  # after a text-mode transfer, which this signature detects
        (b"\xff\xd8", None),
        (b"RIFF\x10\x00\x00\x00WAVE", None),
        (b"RIFF", None),
        (picture("GIF")[:16], None),
        (picture("BMP")[:16], None),
        (picture("TIFF")[:16], None),
        (b"<!DOCTYPE html>", None),
        (b'{"error": {}}', None),
        (b"%PDF-1.7", None),
        (b"<svg xmlns=", None),
        (b" \x89PNG\r\n\x1a\n", None),
    ],
)
def test_image_type_from_the_first_bytes(head: bytes, expected: ImageType | None) -> None:
    assert image_type(head) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("cut", "complete"), [(0, True), (1, False), (12, False), (200, False)])
def test_image_without_announced_length_needs_its_end(form: str, cut: int, complete: bool) -> None:
    content = picture(form)[: len(picture(form)) - cut]
    assert is_complete(FORMS[form], head=content[:16], tail=content[-16:], length=len(content)) is complete


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_padding_after_the_end_is_accepted(form: str) -> None:
    content = picture(form) + b"\x00\n"
    assert is_complete(FORMS[form], head=content[:16], tail=content[-16:], length=len(content))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 1 << 18])
def test_chunks_of_any_size_give_the_same_image(form: str, size: int) -> None:
    content = picture(form, side=64)
    for length in (None, len(content)):
        with check_image(chunked(content, size), limit=LIMIT, length=length) as image:
            assert image.content.read() == content
            assert (image.kind, image.length) == (FORMS[form], len(content))
            assert image.sha256 == hashlib.sha256(content).hexdigest()
            assert image.md5 == hashlib.md5(content, usedforsecurity=False).digest()


GOOD = picture("PNG")


@pytest.mark.parametrize(
    ("content", "length", "limit", "code", "again"),
    [
        (GOOD[:-1], len(GOOD), LIMIT, "imageTruncated", True),
        (GOOD + b"x", len(GOOD), LIMIT, "imageTruncated", True),
        (GOOD[:-1], None, LIMIT, "imageTruncated", True),
        (picture("JPEG")[:-2], None, LIMIT, "imageTruncated", True),
        (picture("WEBP")[:-1], None, LIMIT, "imageTruncated", True),
        (b"", None, LIMIT, "notAnImage", True),
        (b"", 0, LIMIT, "notAnImage", True),
        (b"<html>Sign in</html>", 20, LIMIT, "notAnImage", True),  # a sign-in page, which may be temporary
        (picture("GIF"), None, LIMIT, "notAnImage", True),
        # A retry returns the same size.
        (GOOD, None, len(GOOD) - 1, "imageTooLarge", False),
        (GOOD, len(GOOD), len(GOOD) - 1, "imageTooLarge", False),
    ],
)
def test_unusable_image_says_whether_to_retry(
    content: bytes, length: int | None, limit: int, code: str, again: bool
) -> None:
    with (
        pytest.raises(ImageUnusableError) as caught,
        check_image(chunked(content, 100), limit=limit, length=length),
    ):
        pytest.fail("accepted as an image")
    assert (caught.value.code, caught.value.again) == (code, again)


def test_image_of_exactly_the_limit_is_accepted() -> None:
    with check_image([GOOD], limit=len(GOOD), length=None) as image:
        assert image.length == len(GOOD)


def test_reading_stops_at_the_limit() -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield GOOD[:10]

    with pytest.raises(ImageUnusableError), check_image(endless(), limit=95, length=None):
        pytest.fail("accepted as an image")
    assert len(read) == 10
