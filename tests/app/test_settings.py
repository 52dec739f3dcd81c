"""The environment: what is taken, what is refused, and that no message holds a value."""

from __future__ import annotations

import re
from typing import Any

import pytest

from imagegen.deployments import ImageApi
from imagegen.settings import Settings, SettingsError, read_settings
from imagegen.urls import is_loopback, origin_of

CONNECTION = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"
NEEDED = {
    "AzureWebJobsStorage": CONNECTION,
    "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
    "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
    "POLL_SCHEDULE": "0 * * * * *",
}


def problems(**given: str) -> list[str]:
    """What is said about these, each line without its indent; the first line is the same always."""
    with pytest.raises(SettingsError) as caught:
        read_settings(NEEDED | given)
    first, *lines = str(caught.value).splitlines()
    assert first == "The settings of the app must be mended:"
    return [line.strip() for line in lines]


def test_four_settings_are_enough() -> None:
    settings = read_settings(NEEDED)
    [deployment] = settings.deployments
    assert (deployment.name, deployment.deployment, deployment.api) == ("gpt-image-2", "gpt-image-2", ImageApi.IMAGES)
    assert (deployment.api_version, deployment.api_key) == (None, None)  # the v1 route; signed in with Entra ID
    assert settings.repeat_lost_calls is True
    assert (settings.generations_container, settings.images_container) == ("generations", "images")
    assert settings.image_url_allowed_hosts == settings.operation_location_allowed_origins == ()


def test_the_asynchronous_api_has_no_deployment_in_its_route_and_needs_none() -> None:
    [deployment] = read_settings(NEEDED | {"AZURE_OPENAI_DEPLOYMENT": "", "AZURE_OPENAI_API": "operations"}).deployments
    assert (deployment.name, deployment.api, deployment.api_version) == (
        "operations",
        ImageApi.OPERATIONS,
        "2023-06-01-preview",
    )


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_an_empty_setting_is_none(value: str) -> None:
    optional = {str(info.alias): value for info in Settings.model_fields.values()} | NEEDED
    assert read_settings(optional) == read_settings(NEEDED)


def test_space_around_a_value_is_not_part_of_it() -> None:
    assert read_settings(NEEDED | {"AZURE_OPENAI_ENDPOINT": " https://images.example.com/\n"}).endpoint == (
        "https://images.example.com"
    )


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"SAS_LIFETIME_SECONDS": "soon", "AZURE_OPENAI_API": "chat", "IMAGES_CONTAINER": "No"})
    named = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(named) == [
        "AZURE_OPENAI_API",
        "AZURE_OPENAI_ENDPOINT",
        "AzureWebJobsStorage",
        "IMAGES_CONTAINER",
        "POLL_SCHEDULE",
        "SAS_LIFETIME_SECONDS",
    ]


def test_what_is_missing_is_called_missing() -> None:
    assert problems(POLL_SCHEDULE="") == ["POLL_SCHEDULE: is missing"]
    [storage] = problems(AzureWebJobsStorage="")
    assert storage.startswith("AzureWebJobsStorage: is missing; set it to a connection string, or set ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_OPENAI_ENDPOINT", "s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "ftp://s3cret.example.com"),
        ("AZURE_OPENAI_ENDPOINT", "http://s3cret.example.com"),  # the key would go in clear
        ("AZURE_OPENAI_ENDPOINT", "http://127.s3cret.example.com"),  # a name, not this machine
        ("AZURE_OPENAI_ENDPOINT", "https://user:s3cret@images.example.com"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com?key=s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com#s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com:s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://[s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://s3cret\u2100.example.com"),  # Python's own message would quote it
        ("AZURE_OPENAI_SCOPE", "s3cret"),
        ("AZURE_OPENAI_SCOPE", "http://s3cret/.default"),
        ("AZURE_OPENAI_API", "s3cret"),
        ("AZURE_OPENAI_API_VERSION", "s3cret"),
        ("AZURE_OPENAI_API_VERSION", "2023-06-01-preview&s3cret"),
        ("OPERATION_LOCATION_ALLOWED_ORIGINS", "https://a.example.com,s3cret"),
        ("OPERATION_LOCATION_ALLOWED_ORIGINS", "https://a.example.com/s3cret"),
        ("POLL_SCHEDULE", "*/7 * * * *"),  # crontab's five fields: the host would refuse it later
        ("POLL_SCHEDULE", "61 * * * * *"),
        ("POLL_SCHEDULE", "s3cret * * * * *"),
        ("GENERATIONS_CONTAINER", "S3cret"),
        ("GENERATIONS_CONTAINER", "s3"),
        ("GENERATIONS_CONTAINER", "s3cret--"),
        ("IMAGES_CONTAINER", "s" * 64),
        ("IMAGES_CONTAINER", "s" + "-3" * 32),
        ("GENERATION_TIMEOUT_SECONDS", "29"),
        ("GENERATION_TIMEOUT_SECONDS", "86401"),
        ("GENERATION_TIMEOUT_SECONDS", "s3cret"),
        ("GENERATION_TIMEOUT_SECONDS", "60.5"),
        ("SAS_LIFETIME_SECONDS", "59"),
        ("SAS_LIFETIME_SECONDS", "518401"),
        ("MAX_IMAGE_BYTES", "1023"),
        ("MAX_IMAGE_BYTES", "1073741825"),
        ("MAX_ACTIVE_GENERATIONS", "0"),
        ("RETENTION_DAYS", "0"),
        ("PUBLIC_BASE_URL", "s3cret.example.com/api"),
        ("PUBLIC_BASE_URL", "https://images.example.com/api?code=s3cret"),
        ("AzureWebJobsStorage__blobServiceUri", "https://a.blob.core.windows.net/?sv=s3cret"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(name: str, value: str) -> None:
    [problem] = problems(**{name: value})
    assert re.match(rf"{name}(\.\d+)?: ", problem)  # of a list, by its place too
    assert "s3" not in problem.lower()
    assert value not in problem


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AZURE_OPENAI_ENDPOINT", "https://gateway.example.com/images/", "endpoint", None),
        ("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:7072", "endpoint", "http://127.0.0.1:7072"),
        ("AZURE_OPENAI_ENDPOINT", "http://localhost:7072/", "endpoint", "http://localhost:7072"),
        ("AZURE_OPENAI_ENDPOINT", "http://[::1]:7072", "endpoint", "http://[::1]:7072"),
        ("AZURE_OPENAI_SCOPE", "https://ai.azure.com/.default", "scope", "https://ai.azure.com/.default"),
        ("AZURE_OPENAI_API_VERSION", "2023-10-01-preview", "api_version", "2023-10-01-preview"),
        (
            "OPERATION_LOCATION_ALLOWED_ORIGINS",
            " https://A.example.com , http://127.0.0.1:9/,",
            "operation_location_allowed_origins",
            ("https://a.example.com:443", "http://127.0.0.1:9"),
        ),
        (
            "IMAGE_URL_ALLOWED_HOSTS",
            ".Blob.Core.Windows.net, localhost:7072",
            "image_url_allowed_hosts",
            (".blob.core.windows.net", "localhost:7072"),
        ),
        ("POLL_SCHEDULE", "*/10 * * * * *", "poll_schedule", "*/10 * * * * *"),
        ("POLL_SCHEDULE", "0 */5 9-17 * * MON-FRI", "poll_schedule", "0 */5 9-17 * * MON-FRI"),
        ("IMAGES_CONTAINER", "a-b-1", "images_container", "a-b-1"),
        ("SAS_LIFETIME_SECONDS", "518400", "sas_lifetime_seconds", 518_400),
        ("PUBLIC_BASE_URL", "https://images.example.com/api/", "public_base_url", "https://images.example.com/api"),
    ],
)
def test_a_right_value_is_taken_in_one_spelling(name: str, value: str, field: str, expected: Any) -> None:
    assert getattr(read_settings(NEEDED | {name: value}), field) == (expected or value.rstrip("/"))


def test_the_deployment_is_what_callers_write_as_model() -> None:
    settings = read_settings(NEEDED | {"AZURE_OPENAI_DEPLOYMENT": "dalle", "AZURE_OPENAI_API_KEY": "s3cret"})
    assert settings.deployments[0].name == "dalle"
    assert settings.deployments[0].api_key is not None
    assert settings.deployments[0].api_key.get_secret_value() == "s3cret"


def test_settings_can_be_printed_without_a_secret() -> None:
    settings = read_settings(NEEDED | {"AZURE_OPENAI_API_KEY": "s3cret"})
    for text in (repr(settings), repr(settings.deployments[0]), settings.model_dump_json()):
        assert "s3cret" not in text
        assert "c2VjcmV0" not in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com", "https://example.com:443"),
        ("https://EXAMPLE.com:443/path?query", "https://example.com:443"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com:80", "https://example.com:80"),
        ("https://example.com:0", "https://example.com:0"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
    ],
)
def test_an_origin_has_one_spelling(url: str, expected: str) -> None:
    assert origin_of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://user:password@example.com",
        "https://example.com@evil.example",
        "https://evil.example\\@example.com/",
        "https://example.com /",
        "https://example.com\t/",
        "",
        "example.com",
        "//example.com",
        "ftp://example.com",
        "https://",
        "https://a:b",
        "https://[::",
    ],
)
def test_what_is_no_url_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not a|holds what)"):
        origin_of(url)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("127.example.com", False),  # a name that anybody can have
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
