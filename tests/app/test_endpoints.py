"""Endpoints as portals show them: the URL that the app calls for each, or the sentence that says what to change."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable

import pytest

from imagegen.deployments import Deployment
from imagegen.endpoints import ImageApi
from imagegen.settings import SettingsError, read_settings
from imagegen.upstream.flux import flux
from imagegen.upstream.mai import mai
from imagegen.upstream.openai_images import openai_images
from imagegen.upstream.operations import OperationsUpstream

HOST = "https://res.services.ai.azure.com"
GATEWAY = "https://gw.example.com/imagegw"
NEEDED = {"AzureWebJobsStorage": "UseDevelopmentStorage=true", "POLL_SCHEDULE": "0 * * * * *"}
NAMES = {"images": "gpt-image-2", "flux": "FLUX.2-pro", "mai": "MAI-Image-2.5", "operations": ""}
V1_ROUTE = "/openai/v1/images/generations"
DATED = "2025-04-01-preview"
SUBMIT = "/openai/images/generations:submit?api-version=2023-06-01-preview"
FLUX = "/providers/blackforestlabs/v1/flux-2-pro?api-version=preview"
MAI = "/mai/v1/images/generations"

MIXED = "abcdEFGH" + "1234_xyz789-QQQ"
"""Not one literal: the secret scan would find it."""


def called(deployment: Deployment) -> str:
    """The URL that the app sends a prompt to."""
    match deployment.api:
        case ImageApi.OPERATIONS:
            return OperationsUpstream(deployment, allowed_origins=(), connections=1)._submit_url  # pyright: ignore[reportPrivateUsage]
        case ImageApi.IMAGES:
            return openai_images(deployment).url
        case ImageApi.FLUX:
            return flux(deployment).url
        case ImageApi.MAI:
            return mai(deployment).url


def settings(endpoint: str, api: str, version: str = "", deployment: str | None = None) -> dict[str, str]:
    return NEEDED | {
        "AZURE_OPENAI_ENDPOINT": endpoint,
        "AZURE_OPENAI_API": api,
        "AZURE_OPENAI_API_VERSION": version,
        "AZURE_OPENAI_DEPLOYMENT": NAMES[api] if deployment is None else deployment,
    }


def entry(endpoint: str, api: str, version: str = "", deployment: str | None = None) -> dict[str, str]:
    """The same as one element of a list."""
    name = deployment or NAMES[api]
    fields = {"name": name or "any", "api": api, "endpoint": endpoint, "deployment": name, "apiVersion": version}
    return NEEDED | {"IMAGE_DEPLOYMENTS": json.dumps([{key: value for key, value in fields.items() if value}])}


def problem(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(environment)
    first, *lines = str(caught.value).splitlines()
    assert first == "Invalid settings:"
    [line] = lines
    return line.strip()


@pytest.mark.parametrize("form", [settings, entry])
@pytest.mark.parametrize("base", ["https://res.openai.azure.com", HOST, f"{HOST}/api/projects/p", GATEWAY])
@pytest.mark.parametrize(
    ("api", "pasted", "version", "expected"),
    [
        *(
            ("images", pasted, "", V1_ROUTE)
            for pasted in (
                *("", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/", "//openai/v1//", "/OpenAI/V1"),
                *("/openai/v1/models", "/openai/models", "/openai/deployments", "/openai/images/generations"),
                *(V1_ROUTE, f"{V1_ROUTE}/", f"{V1_ROUTE}?", "/openai/v1/images/edits", "/openai/v1/images"),
                *("/openai/deployments/gpt-image-2", "/openai/deployments/GPT-image-2/images/generations"),
                "/openai/deployments/gpt%2Dimage-2/images/edits",
                f"{V1_ROUTE}?api-version=v1",
            )
        ),
        ("images", "/openai/v1", "preview", f"{V1_ROUTE}?api-version=preview"),
        ("images", f"{V1_ROUTE}?api-version=preview", "", f"{V1_ROUTE}?api-version=preview"),
        ("images", f"{V1_ROUTE}?API-Version=Preview&", "preview", f"{V1_ROUTE}?api-version=preview"),
        ("images", "/openai/v1", "v1", V1_ROUTE),
        *(
            ("images", pasted, version, f"/openai/deployments/gpt-image-2/images/generations?api-version={DATED}")
            for pasted, version in (
                ("", DATED),
                ("/openai", DATED),
                (f"/?api-version={DATED}", ""),
                (f"/openai?api-version={DATED}", DATED),
                (f"/openai/deployments/gpt-image-2?api-version={DATED}", ""),
                (f"/openai/deployments/gpt-image-2/images/generations?api-version={DATED}", ""),
                (f"/openai/deployments/gpt-image-2/images/generations?api-version={DATED}", DATED),
                ("/openai/deployments/gpt-image-2/images/generations", DATED),
            )
        ),
        *(
            ("operations", pasted, "", SUBMIT)
            for pasted in (
                *("", "/openai", SUBMIT, "/openai/images/generations:submit", "/openai/images/generations"),
                *("/openai/operations/images/5f0e", "/openai/dalle/operations/images"),
            )
        ),
        ("operations", SUBMIT, "2023-06-01-preview", SUBMIT),
        ("operations", SUBMIT.replace("-06-", "-10-"), "", SUBMIT.replace("-06-", "-10-")),
        *(
            ("flux", pasted, "", FLUX)
            for pasted in (
                *("", "/openai", "/openai/v1/", FLUX, FLUX.partition("?")[0], "/providers/blackforestlabs/v1"),
                "/providers/blackforestlabs",
            )
        ),
        ("flux", FLUX, "preview", FLUX),
        *(
            ("mai", pasted, "", MAI)
            for pasted in ("", "/openai", "/openai/v1/", MAI, f"{MAI}?api-version=preview", "/mai/v1")
        ),
    ],
)
def test_pasted_route_is_taken_off(
    form: type[object], base: str, api: str, pasted: str, version: str, expected: str
) -> None:
    environment = (settings if form is settings else entry)(f"{base}{pasted}", api, version)
    [deployment] = read_settings(environment).deployments
    assert deployment.endpoint == base
    assert called(deployment).replace("GPT", "gpt") == f"{base}{expected}"
    assert deployment.deployment.lower() == (NAMES[api] or deployment.name).lower()


@pytest.mark.parametrize(
    ("pasted", "base"),
    [
        (f"{HOST}/models", HOST),  # the base of Azure AI model inference
        (f"{HOST}/models/", HOST),
        (f"{HOST}/models?api-version=2024-05-01-preview", HOST),  # which is no version of an image API
        (f"{HOST}/models/images/generations?api-version=2024-05-01-preview", HOST),
        ("https://res.services.ai.azure.us/models", "https://res.services.ai.azure.us"),
        ("https://gw.example.com/models", "https://gw.example.com/models"),  # a gateway's own path
        ("https://res.openai.azure.us.example.com/models", "https://res.openai.azure.us.example.com/models"),
        ("https://openai.azure.com.example.com/v1", "https://openai.azure.com.example.com/v1"),
        ("https://gw.example.com/images", "https://gw.example.com/images"),
        ("https://gw.example.com/mai", "https://gw.example.com/mai"),
        ("https://gw.example.com/providers", "https://gw.example.com/providers"),
        ("https://gw.example.com/myopenai", "https://gw.example.com/myopenai"),
        ("https://gw.example.com/openai/openai", "https://gw.example.com/openai"),  # one route only
        ("http://127.0.0.1:7072/openai/v1", "http://127.0.0.1:7072"),
        ("https://gw.example.com:8443/a/openai/v1", "https://gw.example.com:8443/a"),
    ],
)
@pytest.mark.parametrize("api", ["images", "flux", "mai"])
def test_base_path_stays(pasted: str, base: str, api: str) -> None:
    [deployment] = read_settings(settings(pasted, api)).deployments
    assert deployment.endpoint == base
    assert deployment.api_version in (None, "preview")  # the default


def test_deployment_of_the_url_fills_a_missing_name() -> None:
    pasted = f"{HOST}/openai/deployments/our-model/images/generations?api-version={DATED}"
    [single] = read_settings(settings(pasted, "images", deployment="")).deployments
    assert (single.name, single.deployment, single.api_version) == ("our-model", "our-model", DATED)
    listed = [{"name": "best", "api": "images", "endpoint": pasted}]
    [one] = read_settings(NEEDED | {"IMAGE_DEPLOYMENTS": json.dumps(listed)}).deployments
    assert (one.name, one.deployment, one.api_version) == ("best", "our-model", DATED)


def test_model_path_of_the_url_fills_a_missing_one() -> None:
    [single] = read_settings(settings(f"{HOST}{FLUX}", "flux", deployment="our-flux")).deployments
    assert (single.deployment, single.model_path) == ("our-flux", "flux-2-pro")
    [one] = read_settings(entry(f"{HOST}{FLUX}", "flux", deployment="our-flux")).deployments
    assert (one.deployment, one.model_path) == ("our-flux", "flux-2-pro")


def test_main_endpoint_states_nothing_about_other_entries() -> None:
    entries = [{"name": "FLUX.2-flex", "api": "flux"}, {"name": "a", "api": "images"}, {"name": "b", "api": "mai"}]
    pasted = f"{HOST}/openai/deployments/c/images/generations?api-version={DATED}"
    found = read_settings(
        NEEDED | {"AZURE_OPENAI_ENDPOINT": pasted, "IMAGE_DEPLOYMENTS": json.dumps(entries)}
    ).deployments
    assert [called(one) for one in found] == [
        f"{HOST}/providers/blackforestlabs/v1/flux-2-flex?api-version=preview",
        f"{HOST}/openai/deployments/a/images/generations?api-version={DATED}",
        f"{HOST}{MAI}",
    ]


def test_v1_endpoint_of_an_entry_replaces_the_default_version() -> None:
    entries = [{"name": "a", "api": "images", "endpoint": f"{HOST}/openai/v1"}, {"name": "b", "api": "images"}]
    environment = settings(HOST, "images", DATED) | {"IMAGE_DEPLOYMENTS": json.dumps(entries)}
    first, second = read_settings(environment).deployments
    assert (first.api_version, second.api_version) == (None, DATED)


def test_main_key_goes_to_a_pasted_route_of_its_origin() -> None:
    entries = [{"name": "a", "api": "images", "endpoint": f"{HOST}/openai/v1"}]
    environment = settings(f"{HOST}/openai", "images") | {
        "AZURE_OPENAI_API_KEY": "the-usual-key",
        "IMAGE_DEPLOYMENTS": json.dumps(entries),
    }
    [found] = read_settings(environment).deployments
    assert found.api_key


@pytest.mark.parametrize(
    ("api", "pasted", "version", "deployment", "names"),
    [
        # Another API
        ("operations", V1_ROUTE, "", "", (V1_ROUTE, "'images'", "is 'operations'")),
        ("operations", "/openai/v1", "", "", ("'/openai/v1'", "'images' or 'flux' or 'mai'", "is 'operations'")),
        ("flux", V1_ROUTE, "", "FLUX.2-pro", (V1_ROUTE, "'images'", "is 'flux'")),
        ("mai", "/openai/deployments/d", "", "d", ("/openai/deployments/{deployment}", "'images'", "is 'mai'")),
        ("images", FLUX, "", "d", ("blackforestlabs/v1/{model_path}'", "'flux'", "is 'images'")),
        ("images", MAI, "", "d", (MAI, "'mai'", "is 'images'")),
        ("images", SUBMIT, "", "d", ("generations:submit'", "'operations'", "is 'images'")),
        # Another deployment
        ("images", "/openai/deployments/d1/images/generations", "", "d2", ("'d1'", "is 'd2'")),
        ("images", f"/openai/deployments/d1?api-version={DATED}", "", "d2", ("'d1'", "is 'd2'")),
        ("flux", FLUX, "", "FLUX.2-flex", ("'flux-2-pro'", "belongs to the model path 'flux-2-flex'")),
        # Another version
        ("images", f"/openai?api-version={DATED}", "2024-10-21", "d", (f"'{DATED}'", "is '2024-10-21'")),
        ("images", f"{V1_ROUTE}?api-version=preview", "latest", "d", ("'preview'", "is 'latest'")),
        ("images", "/openai/v1/", DATED, "d", ("'/openai/v1'", f"is '{DATED}'")),
        ("images", f"/openai/v1?api-version={DATED}", "", "d", ("the v1 route", f"'{DATED}'")),
        ("operations", SUBMIT, "2023-10-01-preview", "", ("'2023-06-01-preview'", "is '2023-10-01-preview'")),
        ("flux", FLUX, "2026-01-01-preview", "FLUX.2-pro", ("'preview'", "is '2026-01-01-preview'")),
        ("flux", f"{FLUX[:-7]}v1", "", "FLUX.2-pro", ("'v1'", "'flux'", "'preview'")),
        # Another route
        ("images", "/openai/deployments/d/chat/completions", "", "d", ("'/chat/completions'",)),
        ("images", "/openai/v1/responses", "", "d", ("'/responses'",)),
        ("images", "/v1/images/generations", "", "d", ("'/images/generations'",)),
        ("images", "/models/chat/completions?api-version=2024-05-01-preview", "", "d", ("'/chat/completions'",)),
        (
            "images",
            "/openai/deployments/%00x",
            "",
            "d",
            ("a deployment in its route", "the invisible character U+0000"),
        ),
        (
            "images",
            "/openai/deployments/a%7F",
            "",
            "d",
            ("a deployment in its route", "the invisible character U+007F"),
        ),
        ("flux", "/providers/blackforestlabs/v1/a%20b", "", "d", ("a model path with characters that it cannot have",)),
    ],
)
@pytest.mark.parametrize("form", [settings, entry])
def test_contradiction_is_refused_with_both_values(
    form: type[object], api: str, pasted: str, version: str, deployment: str, names: tuple[str, ...]
) -> None:
    environment = (settings if form is settings else entry)(f"{HOST}{pasted}", api, version, deployment)
    found = problem(environment)
    place = "AZURE_OPENAI_ENDPOINT" if form is settings else r"IMAGE_DEPLOYMENTS\.0\.endpoint"
    example = "AZURE_OPENAI_ENDPOINT=" if form is settings else '"endpoint": "'
    assert re.fullmatch(rf"{place}: has .+\. .+\. Example: {example}\S+|{place}: ends with .+\. Example: .+", found)
    assert [name for name in names if name not in found] == []
    assert HOST not in found


@pytest.mark.parametrize("form", [settings, entry])
@pytest.mark.parametrize(
    ("name", "is_quoted"),
    [
        ("gpt-image-2", True),
        ("FLUX.1-Kontext-pro", True),
        ("dall-e-3-standard-swedencentral", True),
        ("gpt-image-1.5-2025-12-16-production", True),
        ("sk-" + MIXED, False),
        ("sk-short", False),
        ("7b0e1c52-93ad-4f0e-8a57-6f1d2c9be034", False),
        ("0123456789abcdef" * 2, False),
        (MIXED, False),
        ("kJhGfDsAqWeR" + "tYuIoPzXcVbNm", False),
    ],
)
def test_name_that_looks_like_a_key_is_not_quoted(form: type[object], name: str, *, is_quoted: bool) -> None:
    make = settings if form is settings else entry
    for environment in (
        make(f"{HOST}/openai/deployments/D1", "images", deployment=name),
        make(f"{HOST}/openai/deployments/{name}", "images", deployment="D1"),
    ):
        found = problem(environment)
        assert "'D1'" in found
        assert (f"'{name}'" in found) is is_quoted
        assert (name in found) is is_quoted
        assert (f"a text of {len(name)} characters" in found) is not is_quoted


def test_main_endpoint_is_checked_with_a_list_too() -> None:
    listed = {"IMAGE_DEPLOYMENTS": '[{"name": "FLUX.2-pro", "api": "flux"}]'}
    assert "is 'images'. Set AZURE_OPENAI_API to 'flux'" in problem(settings(f"{HOST}{FLUX}", "images") | listed)
    [found] = read_settings(settings(f"{HOST}{FLUX}", "flux") | listed).deployments
    assert called(found) == f"{HOST}{FLUX}"


def test_wrong_api_is_not_a_contradiction_too() -> None:
    assert problem(settings(f"{HOST}{FLUX}", "images") | {"AZURE_OPENAI_API": "chat"}).startswith("AZURE_OPENAI_API: ")


PORTAL = "is the address of the portal. Copy the endpoint from Keys and Endpoint."


@pytest.mark.parametrize("form", [settings, entry])
@pytest.mark.parametrize(
    ("pasted", "expected"),
    [
        ("https://portal.azure.com/#home", PORTAL),
        ("https://ms.portal.azure.com/", PORTAL),
        ("https://ai.azure.com/resource/overview?tid=1", PORTAL),
        ("https://OAI.azure.com/portal", PORTAL),
        ("https://portal.azure.us/", PORTAL),
        ("https://ai.azure.cn/", PORTAL),
        ("https://api.openai.com/v1", "is the API of OpenAI, which is another service. "),
        (f"{HOST}/anthropic/v1/messages", "has the path /anthropic/v1/messages, which is not "),
        ("https://res.openai.azure.com/openai/v2", "has the path /openai/v2, which is not "),
        ("https://res.openai.azure.com/v1", "has the path /v1, which is not "),
        ("https://res.openai.azure.com./v1", "has the path /v1, which is not "),
        ("https://res.openai.azure.us/v1", "has the path /v1, which is not "),
        ("https://res.services.ai.azure.us/v1", "has the path /v1, which is not "),
        ("https://res.openai.azure.cn/v1", "has the path /v1, which is not "),
        ("https://res.cognitiveservices.azure.cn/v1", "has the path /v1, which is not "),
        ("https://res.api.cognitive.azure.cn/v1", "has the path /v1, which is not "),
        ("https://res.openai.azure.com/s3crets3crets3crets3cret", "has the path /..., which is not "),
        (f"{HOST}/api/projects/p/x", "has the path /api/projects/p/x, which is not "),
        (f"{HOST}?api-version=2024-10-21&x=1", "has 'x' in its query. Remove it: "),
        (f"{HOST}?api-version=2024-99-99", "has an api-version in its query that is not an API version. "),
        ("https://https://res.openai.azure.com", "has its scheme twice. Remove one of them."),
        ("https://a.example.com, https://b.example.com", "has two URLs. Use one."),
        ("https://a.example.com https://b.example.com", "has two URLs. Use one."),
        ("https://a.example.com;https://b.example.com", "has two URLs. Use one."),
    ],
)
def test_url_of_something_else_is_refused(form: Callable[..., dict[str, str]], pasted: str, expected: str) -> None:
    assert problem(form(pasted, "images")).partition(": ")[2].startswith(expected)


@pytest.mark.parametrize(
    "pasted",
    [
        "https://images.example.com?subscription-key=s3cret",
        f"https://images.example.com/openai?api-version={DATED}&code=s3cret",
        "https://images.example.com/openai?code=s3cret&api-version=preview",
        "https://images.example.com?api-version=s3cret",
        "https://images.example.com?api-version=preview&api-version=s3cret",
        "https://images.example.com?s3cret",
        "https://u:s3cret@images.example.com/openai/v1",
        "https://images.example.com/openai/v1#s3cret",
        "https://images.example.com/s3cret/chat/completions",
        "https://images.example.com/openai/deployments/s3crets3crets3crets3crets3cret/images/generations",
        "https://images.example.com/openai/deployments/%22s3cret%22",
        "https://images.example.com/openai/deployments/a%20s3cret",
        f"https://images.example.com/openai/deployments/{'s3cret.' * 20}",
        "https://images.example.com/providers/blackforestlabs/v1/s3cret",
        "https://images.example.com/providers/blackforestlabs/v1/s3cret%20",
        "https://images.example.com/openai/operations/images/s3cret",
    ],
)
def test_message_and_log_quote_no_secret(pasted: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for environment in (settings(pasted, "images"), entry(pasted, "images")):
        assert "s3cret" not in problem(environment)
    assert caplog.text == ""


def test_shortened_endpoint_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    entries = [
        {"name": "a", "api": "images", "endpoint": f"{HOST}/openai/deployments/a?api-version={DATED}"},
        {"name": "b", "api": "images", "endpoint": "https://other.example.com"},
    ]
    read_settings(settings(f"{HOST}/openai/v1/", "images") | {"IMAGE_DEPLOYMENTS": json.dumps(entries)})
    assert [record.getMessage() for record in caplog.records] == [
        "settings.endpoint_shortened setting=AZURE_OPENAI_ENDPOINT route=/openai/v1",
        (
            "settings.endpoint_shortened setting=IMAGE_DEPLOYMENTS.0.endpoint route=/openai/deployments/{deployment} "
            f"api_version={DATED}"
        ),
    ]
    caplog.clear()
    read_settings(settings(f"{HOST}/models?api-version=2024-05-01-preview", "images"))
    assert [record.getMessage() for record in caplog.records] == [
        "settings.endpoint_shortened setting=AZURE_OPENAI_ENDPOINT route='/models?api-version=2024-05-01-preview'"
    ]
    caplog.clear()
    read_settings(settings(HOST, "images"))
    assert caplog.records == []
