"""Settings from the environment, and messages that hold no value."""

from __future__ import annotations

import re
from typing import Any

import pytest

from imagegen.endpoints import Endpoint, ImageApi
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
    """The lines of the message, without the first one, indents and the examples. Each line has one."""
    with pytest.raises(SettingsError) as caught:
        read_settings(NEEDED | given)
    first, *lines = str(caught.value).splitlines()
    assert first == "Invalid settings:"
    found = [re.fullmatch(r"  (?P<text>(?P<name>\w+)[^:]*: .+\.) Example: (?P=name)=\S.*", line) for line in lines]
    return [match["text"] for match in found if match] if all(found) else lines


def test_four_settings_are_enough() -> None:
    settings = read_settings(NEEDED)
    [deployment] = settings.deployments
    assert (deployment.name, deployment.deployment, deployment.api) == ("gpt-image-2", "gpt-image-2", ImageApi.IMAGES)
    assert (deployment.api_version, deployment.api_key) == (None, None)  # the v1 route, and Entra ID
    assert settings.repeat_lost_calls is True
    assert (settings.generations_container, settings.images_container) == ("generations", "images")
    assert settings.image_url_allowed_hosts == settings.operation_location_allowed_origins == ()


def test_operations_api_needs_no_deployment_name() -> None:
    [deployment] = read_settings(NEEDED | {"AZURE_OPENAI_DEPLOYMENT": "", "AZURE_OPENAI_API": "operations"}).deployments
    assert (deployment.name, deployment.api, deployment.api_version) == (
        "operations",
        ImageApi.OPERATIONS,
        "2023-06-01-preview",
    )


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_empty_setting_counts_as_missing(value: str) -> None:
    optional = {str(info.alias): value for info in Settings.model_fields.values()} | NEEDED
    assert read_settings(optional) == read_settings(NEEDED)


def test_space_around_a_value_is_ignored() -> None:
    [deployment] = read_settings(NEEDED | {"AZURE_OPENAI_ENDPOINT": " https://images.example.com/\n"}).deployments
    assert deployment.endpoint == "https://images.example.com"


def test_every_problem_is_reported_at_once() -> None:
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


STORAGE = "AzureWebJobsStorage"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("POLL_SCHEDULE", "", "is missing. Set it."),
        (
            "AZURE_OPENAI_API_KEY",
            "@Microsoft.KeyVault(SecretUri=s3cret)",
            "is a Key Vault reference that Azure could not resolve. Check the secret, and the app's role on the vault.",
        ),
        ("AZURE_OPENAI_API", "s3cret", "is not a known value. Use 'operations', 'images', 'flux' or 'mai'."),
        ("REPEAT_LOST_CALLS", "s3cret", "is neither true nor false. Use one of these."),
        ("RETENTION_DAYS", "s3cret", "is not a whole number. Use digits only."),
        ("RETENTION_DAYS", "0", "is too small. Use 1 or more."),
        ("RETENTION_DAYS", "3651", "is too large. Use 3650 or less."),
        ("RETENTION_DAYS", "3" * 5_000, "is too large. Use a smaller number."),
        (
            "IMAGES_CONTAINER",
            "S3cret",
            (
                "is not a container name. Use 3 to 63 lower-case letters, digits and single hyphens, with a letter or "
                "digit at both ends."
            ),
        ),
        ("AZURE_OPENAI_SCOPE", "s3cret", "is not a scope. Use a URL that ends with /.default."),
        (
            "AZURE_OPENAI_API_VERSION",
            "s3cret",
            "is not an API version. Use a date with or without -preview, or v1, preview or latest.",
        ),
        (
            "POLL_SCHEDULE",
            "0 61 * * * *",
            "has a bad minute field. Use NCRONTAB with six fields, seconds first.",
        ),
        (
            "POLL_SCHEDULE",
            "0 * * * * 7",
            "uses L, W, #, ? or weekday 7, which NCRONTAB does not support. Leave these out; Sunday is 0.",
        ),
        (
            "OPERATION_LOCATION_ALLOWED_ORIGINS",
            "https://example.com/s3cret",
            "has a path. Use the scheme and host only.",
        ),
    ],
)
def test_message_says_what_is_wrong_and_what_to_do(name: str, value: str, expected: str) -> None:
    [problem] = problems(**{name: value})
    assert problem.removeprefix(f"{name}.0").removeprefix(name) == f": {expected}"


@pytest.mark.parametrize("weekday", ["7", "1-7", "5,7", "7,1", "0-7/2", "MON,7"])
def test_weekday_7_is_refused(weekday: str) -> None:
    [problem] = problems(POLL_SCHEDULE=f"0 0 9 * * {weekday}")
    assert "weekday 7" in problem


@pytest.mark.parametrize("dates", ["7 * *", "1-7 * *", "* 7 *", "1,7 1-7 *", "*/7 * 1-5", "17 * *", "* * */7"])
def test_seven_is_a_day_a_month_and_a_step(dates: str) -> None:
    assert read_settings(NEEDED | {"POLL_SCHEDULE": f"0 0 9 {dates}"}).poll_schedule == f"0 0 9 {dates}"


SAS = "BlobEndpoint=https://a.blob.core.windows.net;QueueEndpoint=https://a.queue.core.windows.net;"


@pytest.mark.parametrize("name", ["SharedAccessSignature", "sharedaccesssignature", " SharedAccessSignature"])
def test_storage_that_cannot_sign_links_is_refused(name: str) -> None:
    [problem] = problems(AzureWebJobsStorage=f"{SAS}{name}=sv=2026&sig=s3cret")
    assert problem == (
        f"{STORAGE}: has a SharedAccessSignature, which cannot sign links to images. Use the connection string with "
        f"the AccountKey, or set {STORAGE}__blobServiceUri and {STORAGE}__queueServiceUri to sign in with an identity."
    )
    assert read_settings(NEEDED | {"AzureWebJobsStorage": f"{SAS}{name}=sig=1;AccountKey=a2V5"})


def test_storage_needs_a_connection_string_or_two_endpoints() -> None:
    [problem] = problems(AzureWebJobsStorage="")
    assert problem == (
        f"{STORAGE}: is missing. Set it to a connection string, or set {STORAGE}__blobServiceUri and "
        f"{STORAGE}__queueServiceUri to sign in with an identity."
    )
    assert problems(AzureWebJobsStorage="", AzureWebJobsStorage__blobServiceUri="https://a.example.com") == [
        f"{STORAGE}__queueServiceUri: is missing. Set it: {STORAGE}__blobServiceUri is set, and both belong together."
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_OPENAI_ENDPOINT", "s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "ftp://s3cret.example.com"),
        ("AZURE_OPENAI_ENDPOINT", "http://s3cret.example.com"),  # would send the key in plain text
        ("AZURE_OPENAI_ENDPOINT", "http://127.s3cret.example.com"),  # a host name, not this machine
        ("AZURE_OPENAI_ENDPOINT", "https://user:s3cret@images.example.com"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com?key=s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com#s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://images.example.com:s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://[s3cret"),
        ("AZURE_OPENAI_ENDPOINT", "https://s3cret\u2100.example.com"),  # Python's message quotes the host
        ("AZURE_OPENAI_SCOPE", "s3cret"),
        ("AZURE_OPENAI_SCOPE", "http://s3cret/.default"),
        ("AZURE_OPENAI_API", "s3cret"),
        ("AZURE_OPENAI_API_VERSION", "s3cret"),
        ("AZURE_OPENAI_API_VERSION", "2023-06-01-preview&s3cret"),
        ("AZURE_OPENAI_API_VERSION", "2024-99-99"),
        ("OPERATION_LOCATION_ALLOWED_ORIGINS", "https://a.example.com,s3cret"),
        ("OPERATION_LOCATION_ALLOWED_ORIGINS", "https://a.example.com/s3cret"),
        ("POLL_SCHEDULE", "*/7 * * * *"),  # five fields, as in crontab
        ("POLL_SCHEDULE", "61 * * * * *"),
        ("POLL_SCHEDULE", "s3cret * * * * *"),
        ("GENERATIONS_CONTAINER", "S3cret"),
        ("GENERATIONS_CONTAINER", "s3"),
        ("GENERATIONS_CONTAINER", "s3cret--"),
        ("IMAGES_CONTAINER", "Generated_Images_s3cret"),
        ("IMAGES_CONTAINER", "s3"),
        ("IMAGES_CONTAINER", "-s3cret"),
        ("IMAGES_CONTAINER", "s3--cret"),
        ("IMAGES_CONTAINER", "s" * 64),
        ("IMAGES_CONTAINER", "s" + "-3" * 32),
        ("GENERATION_TIMEOUT_SECONDS", "29"),
        ("GENERATION_TIMEOUT_SECONDS", "86401"),
        ("GENERATION_TIMEOUT_SECONDS", "s3cret"),
        ("GENERATION_TIMEOUT_SECONDS", "60.5"),
        ("GENERATION_TIMEOUT_SECONDS", "3 600"),
        ("GENERATION_TIMEOUT_SECONDS", "3,600"),
        ("GENERATION_TIMEOUT_SECONDS", "36.000"),  # 36,000 in some countries; not 36
        ("IMAGE_URL_ALLOWED_HOSTS", "https://s3cret.example.com"),
        ("IMAGE_URL_ALLOWED_HOSTS", "s3cret.example.com/images"),
        ("IMAGE_URL_ALLOWED_HOSTS", "a.*.s3cret.example.com"),
        ("AZURE_OPENAI_API_KEY", "Bearer s3cret"),
        ("AZURE_OPENAI_DEPLOYMENT", "s3cret two"),
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
def test_wrong_value_is_named_but_not_shown(name: str, value: str) -> None:
    [problem] = problems(**{name: value})
    assert re.fullmatch(rf"{name}(\.\d+)?: .+\. [A-Z].+\.", problem)  # an element of a list has its index
    assert "invalid value" not in problem  # the fallback, which says nothing
    assert "s3" not in problem.lower()
    assert value not in problem


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("0", "is too small. Use 1 or more."),
        ("-1", "is too small. Use 1 or more."),
        ("100001", "is too large. Use 100000 or less."),
        ("1.5", "is not a whole number. Use digits only."),
        ("true", "is not a whole number. Use digits only."),
        ("ten", "is not a whole number. Use digits only."),
        ("10 per minute", "is not a whole number. Use digits only."),
    ],
)
def test_wrong_quota_has_a_sentence(value: str, what: str) -> None:
    [problem] = problems(AZURE_OPENAI_REQUESTS_PER_MINUTE=value)
    assert problem == f"AZURE_OPENAI_REQUESTS_PER_MINUTE: {what}"


def test_empty_quota_is_not_set() -> None:
    assert read_settings(NEEDED | {"AZURE_OPENAI_REQUESTS_PER_MINUTE": ""}).requests_per_minute is None


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AZURE_OPENAI_REQUESTS_PER_MINUTE", " 10 ", "requests_per_minute", 10),
        ("AZURE_OPENAI_REQUESTS_PER_MINUTE", "100000", "requests_per_minute", 100_000),
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
        ("IMAGES_CONTAINER", "a-b", "images_container", "a-b"),
        ("IMAGES_CONTAINER", "abc", "images_container", "abc"),
        ("IMAGES_CONTAINER", "0" * 63, "images_container", "0" * 63),
        # A placeholder is one only as the whole value.
        ("IMAGES_CONTAINER", "todo-images", "images_container", "todo-images"),
        ("GENERATIONS_CONTAINER", "change-me-xxx", "generations_container", "change-me-xxx"),
        ("AZURE_OPENAI_API", "Images", "api", ImageApi.IMAGES),
        ("AZURE_OPENAI_API", "MAI ", "api", ImageApi.MAI),
        ("AZURE_OPENAI_API_VERSION", "2025-04-01-PREVIEW", "api_version", "2025-04-01-preview"),
        ("REPEAT_LOST_CALLS", "FALSE", "repeat_lost_calls", False),
        ("REPEAT_LOST_CALLS", "0", "repeat_lost_calls", False),
        ("REPEAT_LOST_CALLS", "No", "repeat_lost_calls", False),
        ("PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY", "TRUE", "telemetry", True),
        ("PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY", "1", "telemetry", True),
        ("PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY", "yes", "telemetry", True),
        ("RETENTION_DAYS", " 7 ", "retention_days", 7),
        (
            "IMAGE_URL_ALLOWED_HOSTS",
            "*.example.com,[::1]:7072",
            "image_url_allowed_hosts",
            (".example.com", "[::1]:7072"),
        ),
        ("SAS_LIFETIME_SECONDS", "518400", "sas_lifetime_seconds", 518_400),
        ("PUBLIC_BASE_URL", "https://images.example.com/api/", "public_base_url", "https://images.example.com/api"),
    ],
)
def test_valid_value_is_normalized(name: str, value: str, field: str, expected: Any) -> None:
    found = getattr(read_settings(NEEDED | {name: value}), field)
    assert (found.base if isinstance(found, Endpoint) else found) == (
        value.rstrip("/") if expected is None else expected
    )


NAMES = sorted(str(field.alias) for field in Settings.model_fields.values() if field.alias)
BRACKETS = "looks like a placeholder. Write your value instead, without the brackets"
SECRETS = ("AZURE_OPENAI_API_KEY", "COMPAT_API_KEYS")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ('"s3cret"', 'has quotes (") around its value'),
        ("'s3cret'", "has quotes (') around its value"),
        ("\u201cs3cret\u201d", "has quotes (\u201c) around its value"),
        ('s3cret"', 'has quotes (") around its value'),
        ("@Microsoft.KeyVault(SecretUri=s3cret)", "is a Key Vault reference that Azure could not resolve"),
    ],
)
def test_every_setting_names_what_was_pasted_with_it(name: str, value: str, what: str) -> None:
    [problem] = problems(**{name: value})
    assert problem.replace(".0:", ":", 1).startswith(f"{name}: {what}")  # COMPAT_API_KEYS.0
    assert "s3cret" not in problem


@pytest.mark.parametrize("name", [name for name in NAMES if name != "IMAGE_DEPLOYMENTS"])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("<s3cret>", BRACKETS),
        ("{s3cret}", BRACKETS),
        ("your-key", "has the placeholder 'your-key'"),
        ("YOUR_RESOURCE_NAME", "has the placeholder 'YOUR_RESOURCE_NAME'"),
        ("changeme", "has the placeholder 'changeme'"),
        ("xxxxxxxx", "has the placeholder 'xxxxxxxx'"),
        ("%S3CRET%", "is the name of a variable that was not replaced"),
        ("$S3CRET", "is the name of a variable that was not replaced"),
        ("$(S3CRET)", "is the name of a variable that was not replaced"),
    ],
)
def test_every_setting_names_a_placeholder(name: str, value: str, what: str) -> None:
    [problem] = problems(**{name: value})
    assert problem.replace(".0:", ":", 1).startswith(f"{name}: {what}")  # COMPAT_API_KEYS.0
    assert "s3cret" not in problem.lower()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("WEBSITE_HOSTNAME", STORAGE, *SECRETS)])
@pytest.mark.parametrize("value", ["\u2603 s3cret"])
def test_every_setting_refuses_nonsense_with_an_example(name: str, value: str) -> None:
    [problem] = problems(**{name: value})
    assert problem.startswith(f"{name}")
    assert "invalid value" not in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("name", NAMES)
def test_example_of_a_setting_is_accepted(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(NEEDED | {name: '"'})
    example = str(caught.value).partition(f" Example: {name}=")[2]
    assert read_settings(NEEDED | {name: example})


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("https://YOUR-RESOURCE.openai.azure.com", "has the placeholder 'YOUR-RESOURCE'"),
        ("https://your-resource-name.openai.azure.com/", "has the placeholder 'your-resource-name'"),
        ("https://NAME.openai.azure.com", "has the placeholder 'NAME'"),
        ("https://RES.services.ai.azure.com/openai/v1/", "has the placeholder 'RES'"),
        ("https://<name>.openai.azure.com", BRACKETS),
        ("<your-endpoint>", BRACKETS),
        ("https://{name}.openai.azure.com", BRACKETS),
        ("https://images.example.com/openai/deployments/{deployment-id}", BRACKETS),
        ("https://images .example.com", "contains a blank"),
        ("https://images.example.com,", "has a host with characters that no host name has"),
        ("images.example.com", "is not an http or https URL. Use one that starts with https://"),
    ],
)
def test_endpoint_with_a_placeholder_is_named(endpoint: str, what: str) -> None:
    [problem] = problems(AZURE_OPENAI_ENDPOINT=endpoint)
    assert problem.startswith(f"AZURE_OPENAI_ENDPOINT: {what}.")


@pytest.mark.parametrize(
    "host", ["your-surgery", "yourkeys", "yourproject", "yourresource", "name", "renames", "photodome", "resource"]
)
def test_name_like_a_placeholder_is_accepted(host: str) -> None:
    endpoint = f"https://{host}.openai.azure.com"
    assert read_settings(NEEDED | {"AZURE_OPENAI_ENDPOINT": endpoint}).deployments[0].endpoint == endpoint


@pytest.mark.parametrize("key", ["a<b", "{a", "a$b", "mykey-your-key-2", "a'b"])
def test_key_may_have_any_characters_inside(key: str) -> None:
    settings = read_settings(NEEDED | {"AZURE_OPENAI_API_KEY": key, "COMPAT_API_KEYS": f"{key},second key"})
    assert settings.api_key
    assert settings.api_key.get_secret_value() == key
    assert [one.get_secret_value() for one in settings.compat_api_keys] == [key, "second key"]


def key_problems(key: str) -> list[str]:
    """What is said about a key in each of the three settings that can have one."""
    entry = {"IMAGE_DEPLOYMENTS": '[{"name": "a", "api": "images", "apiKeySetting": "OWN_KEY"}]', "OWN_KEY": key}
    return [
        *problems(AZURE_OPENAI_API_KEY=key),
        *problems(COMPAT_API_KEYS=f"first,{key},third"),
        *problems(**entry),
    ]


@pytest.mark.parametrize(
    ("key", "character"),
    [
        ("s3cret\u2013b", "U+2013 (en dash)"),
        ("s3cret\u200bb", "U+200B (zero width space)"),
        ("\ufeffs3cret", "U+FEFF (zero width no-break space)"),
        ("s3cret\u00a0b", "U+00A0 (no-break space)"),
        ("s3cret\u2026", "U+2026 (horizontal ellipsis)"),
        ("s3cret\x01b", "U+0001"),
        ("\u00e9s3cret", "U+00E9 (latin small letter e with acute)"),
    ],
)
def test_key_has_printable_ascii_only(key: str, character: str) -> None:
    found = key_problems(key)
    assert len(found) == 3
    for problem in found:
        assert f" character {character}" in problem
        assert "s3cret" not in problem


@pytest.mark.parametrize(
    "prefix", ["Bearer ", "bearer  ", "api-key: ", "API-KEY:", "Authorization: Bearer ", "Ocp-Apim-Subscription-Key: "]
)
def test_key_with_its_header_in_front_is_refused(prefix: str) -> None:
    found = key_problems(f"{prefix}s3cret")
    assert len(found) == 3
    for problem in found:
        assert f"has more than the key. Remove '{prefix}' in front." in problem
        assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("changeme,real-key", "0"),
        ("real-key, TODO", "1"),
        ("real-key,<key>", "1"),
        ("real-key,your-key", "1"),
    ],
)
def test_placeholder_among_the_keys_is_refused(keys: str, place: str) -> None:
    [problem] = problems(COMPAT_API_KEYS=keys)
    assert re.match(rf"COMPAT_API_KEYS\.{place}: (has the|looks like a) placeholder", problem)
    assert "real-key" not in problem


def test_commas_are_no_keys() -> None:
    assert problems(COMPAT_API_KEYS=" , ,") == ["COMPAT_API_KEYS: has commas only. Write a key, or remove the setting."]


def test_base_url_without_a_path_is_refused() -> None:
    for url in ("https://images.example.com", "http://localhost:7191/"):
        [problem] = problems(PUBLIC_BASE_URL=url)
        assert problem.endswith("the routes of the app start with /api. Add /api.")
    assert read_settings(NEEDED | {"PUBLIC_BASE_URL": "https://gw.example.com/images"})


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [
        ("192.168.1.2:7071", True),
        ("10.0.0.1", True),
        ("[fe80::1]:7071", True),
        ("host.docker.internal:7071", True),
        ("my-mac.local:7071", True),
        ("localhost:7071", True),
        ("172.31.255.255", True),
        ("[fd00::1]:7071", True),
        ("127.0.0.2", True),
        ("8.8.8.8", False),
        ("172.32.0.1", False),
        # Python's `is_private` is true for these too.
        ("169.254.169.254", False),
        ("203.0.113.9", False),
        ("0.0.0.0:7071", False),
        ("images.example.com", False),
        ("10.0.0.1.example.com", False),
        ("host.docker.internal.example.com", False),
    ],
)
def test_http_base_url_stays_in_the_private_network(host: str, *, is_accepted: bool) -> None:
    given = {"PUBLIC_BASE_URL": f"http://{host}/api"}
    for local in ({}, {"WEBSITE_HOSTNAME": "localhost:7071"}):  # Core Tools sets it
        if is_accepted:
            assert read_settings(NEEDED | given | local).public_base_url == given["PUBLIC_BASE_URL"]
        else:
            [problem] = problems(**given, **local)
            assert "uses http, which is accepted only for this machine (localhost) and its private network" in problem


def test_http_base_url_is_refused_in_azure() -> None:
    [problem] = problems(PUBLIC_BASE_URL="http://10.0.0.1/api", WEBSITE_HOSTNAME="me.azurewebsites.net")
    assert "uses http, which is accepted only for this machine (localhost). Use https." in problem


@pytest.mark.parametrize("version", ["v1", "V1"])
def test_version_v1_is_the_route_without_a_version(version: str) -> None:
    [deployment] = read_settings(NEEDED | {"AZURE_OPENAI_API_VERSION": version}).deployments
    assert deployment.api_version is None


@pytest.mark.parametrize(("api", "instead"), [("operations", "2023-06-01-preview"), ("flux", "preview")])
def test_version_v1_is_refused_for_apis_that_lack_it(api: str, instead: str) -> None:
    given = {"AZURE_OPENAI_API": api, "AZURE_OPENAI_DEPLOYMENT": "FLUX.2-pro", "AZURE_OPENAI_API_VERSION": "v1"}
    [problem] = problems(**given)
    assert problem == (
        f"AZURE_OPENAI_API_VERSION: has the API version 'v1', which the API '{api}' does not have. Remove it, or use "
        f"'{instead}'."
    )


def test_deployment_name_is_the_model_of_requests() -> None:
    settings = read_settings(NEEDED | {"AZURE_OPENAI_DEPLOYMENT": "dalle", "AZURE_OPENAI_API_KEY": "s3cret"})
    assert settings.deployments[0].name == "dalle"
    assert settings.deployments[0].api_key is not None
    assert settings.deployments[0].api_key.get_secret_value() == "s3cret"


def test_printed_settings_show_no_secret() -> None:
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
def test_origin_is_normalized(url: str, expected: str) -> None:
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
        "https://https://example.com",
        "https://http://example.com",
        "https://HTTPS//example.com",
    ],
)
def test_invalid_url_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not a|contains a |has its scheme twice\. )"):
        origin_of(url)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("127.example.com", False),  # a host name, which may have any address
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
