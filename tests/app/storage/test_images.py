"""Images from a real server, written to a real Azurite."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import requests
from azure.storage.blob import BlobServiceClient, ContainerClient
from PIL import Image

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.generation import GenerationError, StoredImage
from imagegen.settings import read_settings
from imagegen.storage.clients import open_storage
from imagegen.storage.download import Downloader
from imagegen.storage.images import BlobImages
from imagegen.upstream.protocol import ImageBytes, ImageRefused, ImageUrl
from local.azurite import Azurite
from tests.app.generations import ID
from tests.pictures import picture
from tests.scripted_server import ScriptedServer, http, scripted_server

LIMIT = 20 * 2**20
NOW = datetime.now(UTC)


@pytest.fixture
def server() -> Generator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def service(azurite: Azurite) -> BlobServiceClient:
    settings = read_settings(
        {
            "AzureWebJobsStorage": azurite.connection_string,
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
    return open_storage(settings, connections=2)


@pytest.fixture
def container(service: BlobServiceClient) -> ContainerClient:
    """A name; the container does not exist yet."""
    return service.get_container_client(f"i-{uuid4().hex}")


def blob_images(
    service: BlobServiceClient, container: str, server: ScriptedServer, *, now: datetime = NOW, limit: int = LIMIT
) -> BlobImages:
    downloader = Downloader(allowed_hosts=[], endpoints=[server.url], connections=2, seconds=30)
    return BlobImages(
        service,
        container,
        downloader=downloader,
        limit=limit,
        link_lifetime=timedelta(hours=1),
        clock=lambda: now,
    )


@pytest.fixture
def images(service: BlobServiceClient, container: ContainerClient, server: ScriptedServer) -> BlobImages:
    return blob_images(service, container.container_name, server)


def copy(images: BlobImages, server: ScriptedServer, content: bytes, index: int = 0) -> StoredImage:
    server.answers(http(200, content, content_type="application/octet-stream"))
    return images.copy(ImageUrl(f"{server.url}/i.png?sig=s3cret", "nicer"), ID, index)


@pytest.mark.parametrize(
    ("form", "content_type", "extension"),
    [("PNG", "image/png", "png"), ("JPEG", "image/jpeg", "jpg"), ("WEBP", "image/webp", "webp")],
)
def test_blob_has_type_hashes_and_content(
    images: BlobImages, container: ContainerClient, server: ScriptedServer, form: str, content_type: str, extension: str
) -> None:
    content = picture(form)
    image = copy(images, server, content, index=3)
    sha256 = hashlib.sha256(content).hexdigest()
    assert image == StoredImage(
        container=container.container_name,
        blob=f"{ID}/3.{extension}",
        content_type=content_type,  # from the bytes, not from the header
        content_length=len(content),
        sha256=sha256,
        revised_prompt="nicer",
    )
    blob = container.get_blob_client(image.blob)
    properties = blob.get_blob_properties()
    assert properties.content_settings.content_type == content_type
    assert properties.content_settings.content_md5 == bytearray(hashlib.md5(content, usedforsecurity=False).digest())
    assert properties.content_settings.cache_control == "private, max-age=31536000, immutable"
    assert properties.metadata == {"sha256": sha256}
    assert blob.download_blob().readall() == content


def test_image_larger_than_one_request_is_complete(
    images: BlobImages, container: ContainerClient, server: ScriptedServer
) -> None:
    content = picture("BMP", side=2_400)  # 17 MB of noise
    content = picture("PNG")[:16] + content
    image = copy(images, server, content)
    blob = container.get_blob_client(image.blob)
    assert hashlib.sha256(blob.download_blob().readall()).hexdigest() == image.sha256
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    # Azure computes no MD5 of a blob that was sent in blocks.
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    assert blob.get_blob_properties().content_settings.content_md5 == bytearray(md5)


def test_second_write_replaces_the_first(
    images: BlobImages, container: ContainerClient, server: ScriptedServer
) -> None:
    assert copy(images, server, picture("PNG")) == copy(images, server, picture("PNG"))
    assert list(container.list_blob_names()) == [f"{ID}/0.png"]


GOOD = picture("PNG")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (http(200, GOOD[:-9], content_length=str(len(GOOD))), "imageUnavailable"),
        (http(200, GOOD[:-9], content_length=None), "imageTruncated"),
        (http(200, b"a\r\n" + GOOD[:5], transfer_encoding="chunked"), "imageUnavailable"),
        (http(200, b""), "notAnImage"),
        (http(200, b"<html>Sign in</html>", content_type="image/png"), "notAnImage"),
        (http(200, picture("GIF")), "notAnImage"),
        (http(200, GOOD + b"x" * 5_000), "imageTooLarge"),
        (http(200, GOOD + b"x" * 5_000, content_length=None), "imageTooLarge"),
        (http(404), "imageUnavailable"),
        (http(302, location="https://169.254.169.254/"), "imageUrlNotAllowed"),
    ],
)
def test_unusable_image_is_not_written(
    service: BlobServiceClient, container: ContainerClient, server: ScriptedServer, reply: bytes, code: str
) -> None:
    container.create_container()
    server.answers(reply)
    images = blob_images(service, container.container_name, server, limit=5_000)
    with pytest.raises(ImageUnusableError) as caught:
        images.copy(ImageUrl(f"{server.url}/i.png?sig=s3cret"), ID, 0)
    assert caught.value.code == code
    assert "s3cret" not in caught.value.message
    assert list(container.list_blob_names()) == []


def test_link_reads_one_image_for_a_limited_time(
    service: BlobServiceClient, container: ContainerClient, images: BlobImages, server: ScriptedServer
) -> None:
    image, other = copy(images, server, GOOD, 0), copy(images, server, GOOD, 1)
    link = images.link(image)
    assert link.startswith(f"{images.blob_url(image)}?")
    answer = requests.get(link, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)

    signature = link.partition("?")[2]
    past = blob_images(service, container.container_name, server, now=NOW - timedelta(hours=1, seconds=5))
    refused = [
        requests.get(images.blob_url(image), timeout=10),
        requests.get(f"{images.blob_url(other)}?{signature}", timeout=10),
        requests.get(past.link(image), timeout=10),
        requests.put(link, b"x", headers={"x-ms-blob-type": "BlockBlob"}, timeout=10),
        requests.delete(link, timeout=10),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5


def test_links_can_be_signed_with_an_account_key(images: BlobImages) -> None:
    images.check_links()


def test_links_cannot_be_signed_with_a_signature(azurite: Azurite, server: ScriptedServer) -> None:
    service = BlobServiceClient(azurite.blob_endpoint, credential="sv=2021-08-06&sig=s3cret")
    with pytest.raises(StorageUnavailableError):
        blob_images(service, "images", server).check_links()


def test_link_uses_the_container_of_the_image(
    service: BlobServiceClient, images: BlobImages, server: ScriptedServer
) -> None:
    image = copy(images, server, GOOD)
    renamed = blob_images(service, "renamed", server)
    assert requests.get(renamed.link(image), timeout=10).status_code == 200


def test_delete_all_deletes_the_images_of_one_generation(
    images: BlobImages, container: ContainerClient, server: ScriptedServer
) -> None:
    images.delete_all(ID)  # without a container
    copy(images, server, GOOD, 0)
    copy(images, server, GOOD, 1)
    container.upload_blob(f"{ID}0/0.png", GOOD)
    images.delete_all(ID)
    images.delete_all(ID)
    assert list(container.list_blob_names()) == [f"{ID}0/0.png"]


def test_storage_error_is_not_an_unusable_image(azurite: Azurite, server: ScriptedServer) -> None:
    wrong = azurite.connection_string.replace("AccountKey=E", "AccountKey=F")
    images = blob_images(BlobServiceClient.from_connection_string(wrong), "images", server)
    with pytest.raises(StorageUnavailableError):
        copy(images, server, GOOD)


@pytest.mark.parametrize(("side", "form"), [(16, "PNG"), (16, "JPEG"), (2_000, "PNG")])  # the last has 12 MB
def test_image_bytes_are_checked_and_written(
    images: BlobImages, container: ContainerClient, side: int, form: str
) -> None:
    content = picture(form, side=side)
    written = images.copy(ImageBytes(content, "nicer"), ID, 1)
    assert (written.content_length, written.revised_prompt) == (len(content), "nicer")
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert container.download_blob(written.blob).readall() == content


@pytest.mark.parametrize("content", [b"", b"<html>", picture("PNG")[:-20], picture("PNG")[:4]])
def test_unusable_image_bytes_are_not_written(images: BlobImages, container: ContainerClient, content: bytes) -> None:
    with pytest.raises(ImageUnusableError):
        images.copy(ImageBytes(content), ID, 0)
    assert not container.exists()


def test_refused_image_cannot_be_copied(images: BlobImages) -> None:
    with pytest.raises(TypeError):
        images.copy(ImageRefused(GenerationError(code="contentFilter", message="No.")), ID, 0)
