"""The direct APIs of the emulator over HTTP: the response holds the images."""

import base64
import hashlib
import io
import itertools
import json
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import urllib3
from PIL import Image

from tests.emulator.process import KEY, Emulator, running, statuses
from tests.emulator.tokens import ENTRA_TOKEN, OTHER_TOKEN

# Azure/azure-rest-api-specs, inference stable 2024-10-21, examples/image_generation.json.
DALLE_REQUEST = {
    "prompt": "In the style of WordArt, Microsoft Clippy wearing a cowboy hat.",
    "n": 1,
    "style": "natural",
    "quality": "standard",
}
DALLE_ANSWER: dict[str, Any] = {
    "created": 1698342300,
    "data": [
        {
            "revised_prompt": "A vivid, natural representation of Microsoft Clippy wearing a cowboy hat.",
            "prompt_filter_results": {
                "sexual": {"severity": "safe", "filtered": False},
                "violence": {"severity": "safe", "filtered": False},
                "hate": {"severity": "safe", "filtered": False},
                "self_harm": {"severity": "safe", "filtered": False},
                "profanity": {"detected": False, "filtered": False},
            },
            "url": "https://dalletipusw2.blob.core.windows.net/private/images/e5451cc6/generated_00.png?se=2023&...",
            "content_filter_results": {
                "sexual": {"severity": "safe", "filtered": False},
                "violence": {"severity": "safe", "filtered": False},
                "hate": {"severity": "safe", "filtered": False},
                "self_harm": {"severity": "safe", "filtered": False},
            },
        }
    ],
}


KEYED = {"api-key": KEY}
BEARER = {"authorization": f"Bearer {KEY}"}


def post(
    emulator: Emulator, path: str, headers: dict[str, str], body: dict[str, Any], *, timeout: float = 30
) -> requests.Response:
    return requests.post(emulator.base + path, json=body, headers=headers, timeout=timeout)


@dataclass(frozen=True)
class Route:
    name: str
    path: str
    body: dict[str, object] = field(default_factory=dict[str, object])
    bearer: bool = False
    rate_limited: str = "RateLimitReached"
    inner: str = "inner_error"
    typed: bool = True

    @property
    def deployment(self) -> str:
        return str(self.body.get("model") or self.path.split("/")[3])

    def call(self, emulator: Emulator, prompt: str, *, timeout: float = 30, **more: object) -> requests.Response:
        return post(emulator, self.path, self.headers, {**self.body, "prompt": prompt, **more}, timeout=timeout)

    @property
    def headers(self) -> dict[str, str]:
        return BEARER if self.bearer else KEYED


V1 = Route("gpt-image, v1", "/openai/v1/images/generations", {"model": "gpt-image-2", "quality": "low"})
DATED = Route(
    "gpt-image, deployment",
    "/openai/deployments/gpt-image-1.5/images/generations?api-version=2025-04-01-preview",
    {"quality": "low"},
)
DALLE = Route(
    "DALL-E",
    "/openai/deployments/dall-e-3/images/generations?api-version=2024-10-21",
    {"response_format": "b64_json"},
    rate_limited="429",
)
FLUX = Route(
    "FLUX",
    "/providers/blackforestlabs/v1/flux-2-pro?api-version=preview",
    {"model": "FLUX.2-pro", "width": 256, "height": 256},
    bearer=True,
    inner="innererror",
    typed=False,
)
MAI = Route(
    "MAI",
    "/mai/v1/images/generations",
    {"model": "MAI-Image-2.5", "width": 768, "height": 768},
    inner="innererror",
    typed=False,
)
ROUTES = [V1, DATED, DALLE, FLUX, MAI]

every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Emulator]:
    with running(tmp_path_factory.mktemp("emulator") / "log", "--speed", "0") as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator) -> Emulator:
    shared.reset()
    return shared


def opened(item: dict[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(item["b64_json"], validate=True)))
    image.load()
    return image


def deployment_stats(emulator: Emulator, route: Route) -> dict[str, Any]:
    return emulator.stats()["by_deployment"][route.deployment]


def counts(emulator: Emulator, route: Route) -> dict[str, int]:
    """Return the counters, without `impatient`: it depends on the time, so test_quotas.py tests it."""
    stats = deployment_stats(emulator, route)
    return {name: value for name, value in stats.items() if isinstance(value, int) and name != "impatient"}


@every_route
def test_response_holds_the_image(emulator: Emulator, route: Route) -> None:
    answer = route.call(emulator, "An avocado chair")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-ms-request-id"]
    body = answer.json()
    assert abs(body["created"] - time.time()) < 60
    image = opened(body["data"][0])
    expected = (route.body.get("width", 1024), route.body.get("height", 1024))
    assert (image.format, image.size) == ("PNG", expected)


def test_gpt_image_response_describes_the_images(emulator: Emulator) -> None:
    body = DATED.call(
        emulator, "An avocado chair", n=2, size="1536x1024", output_format="jpeg", output_compression=70, user="u"
    ).json()
    first, second = (opened(item) for item in body.pop("data"))
    assert (first.format, first.size) == (second.format, second.size) == ("JPEG", (1536, 1024))
    assert first.tobytes() != second.tobytes()
    del body["created"]
    assert body == {
        "background": "opaque",
        "output_format": "jpeg",
        "quality": "low",
        "size": "1536x1024",
        "usage": {
            "total_tokens": 820,
            "input_tokens": 4,
            "output_tokens": 816,
            "input_tokens_details": {"text_tokens": 4, "image_tokens": 0},
        },
    }


def test_gpt_image_2_makes_large_images(emulator: Emulator) -> None:
    body = V1.call(emulator, "An avocado chair", size="3840x1600", background="transparent").json()
    image = opened(body["data"][0])
    assert (image.size, image.mode, body["size"]) == ((3840, 1600), "RGBA", "3840x1600")


def test_dalle_response_matches_the_official_example(emulator: Emulator) -> None:
    answer = post(emulator, DALLE.path, KEYED, DALLE_REQUEST)
    assert answer.status_code == 200
    assert "\\u0026sig=" in answer.text
    body = answer.json()
    example = DALLE_ANSWER["data"][0]
    assert body.keys() == DALLE_ANSWER.keys()
    assert list(body["data"][0]) == list(example)
    for name in ("prompt_filter_results", "content_filter_results"):
        assert body["data"][0][name] == example[name]
    picture = emulator.image(body["data"][0]["url"])
    assert picture.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == (1024, 1024)


def test_flux_urls_refuse_credentials(emulator: Emulator) -> None:
    data = FLUX.call(emulator, "[url] [image-404:1]", num_images=2, output_format="jpeg").json()["data"]
    assert [list(item) for item in data] == [["url"], ["url"]]
    assert emulator.image(data[0]["url"], authorization=f"Bearer {KEY}").status_code == 400
    assert [emulator.image(data[1]["url"]).status_code for _ in range(2)] == [404, 200]
    assert emulator.image(data[1]["url"]).headers["content-type"] == "image/jpeg"
    assert emulator.stats()["leaked_credentials"] == 1


def test_urls_expire(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0", "--image-lifetime", "0") as emulator:
        urls = [FLUX.call(emulator, "[url]").json()["data"][0]["url"] for _ in range(2)]
        assert [emulator.image(url).status_code for url in urls] == [403, 403]


# Credentials and routes


@dataclass(frozen=True)
class Refused:
    reason: str
    path: str
    headers: dict[str, str]
    status: int
    code: str


DEPLOYMENT = "/openai/deployments/{}/images/generations?api-version={}"
REFUSED = [
    Refused("no credential", V1.path, {}, 401, "401"),
    Refused("a wrong key", V1.path, {"api-key": "wrong"}, 401, "401"),
    Refused("a wrong key at MAI", MAI.path, {"api-key": "wrong"}, 401, "401"),
    Refused("an api-key at FLUX", FLUX.path, KEYED, 401, "401"),
    Refused(
        "a known api-key and a wrong bearer at FLUX", FLUX.path, KEYED | {"authorization": "Bearer wrong"}, 401, "401"
    ),
    Refused("a token of another scope at FLUX", FLUX.path, {"authorization": f"Bearer {OTHER_TOKEN}"}, 401, "401"),
    Refused("a token of another scope at v1", V1.path, {"authorization": f"Bearer {OTHER_TOKEN}"}, 401, "401"),
    Refused("a wrong key at FLUX", FLUX.path, {"authorization": "Bearer wrong"}, 401, "401"),
    Refused("a key under another scheme", FLUX.path, {"authorization": f"Basic {KEY}"}, 401, "401"),
    Refused("v1 with a dated version", V1.path + "?api-version=2025-04-01-preview", KEYED, 404, "404"),
    Refused("no version", DEPLOYMENT.format("gpt-image-1", ""), KEYED, 404, "404"),
    Refused("a version from before gpt-image", DEPLOYMENT.format("gpt-image-1", "2024-10-21"), KEYED, 404, "404"),
    Refused("an unknown version", DEPLOYMENT.format("gpt-image-1", "2025-04-02-preview"), KEYED, 404, "404"),
    Refused("a version from before DALL-E 3", DEPLOYMENT.format("dall-e-3", "2023-06-01-preview"), KEYED, 404, "404"),
    Refused("FLUX without version", FLUX.path.partition("?")[0], BEARER, 404, "404"),
    Refused("FLUX with a dated version", FLUX.path.replace("preview", "2024-10-21"), BEARER, 404, "404"),
    Refused("an unknown FLUX", FLUX.path.replace("flux-2-pro", "flux-3-pro"), BEARER, 404, "404"),
    Refused("MAI with a dated version", MAI.path + "?api-version=2024-10-21", KEYED, 404, "404"),
    Refused("an unknown route", "/openai/images/generations", KEYED, 404, "404"),
    Refused(
        "an unknown deployment",
        DEPLOYMENT.format("missing-1", "2025-04-01-preview"),
        KEYED,
        404,
        "DeploymentNotFound",
    ),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.reason)
def test_call_is_refused_and_not_counted(emulator: Emulator, row: Refused) -> None:
    body = {"model": "gpt-image-1", "prompt": "chair"} if "deployments" not in row.path else {"prompt": "chair"}
    answer = post(emulator, row.path, row.headers, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (row.status, row.code), answer.text
    stats = emulator.stats()
    assert (stats["calls"], stats["by_deployment"]) == (0, {})


ALLOWED = [
    ("v1 preview", V1.path + "?api-version=preview", KEYED),
    ("v1 with a bearer", V1.path, {"authorization": f"Bearer {ENTRA_TOKEN}"}),
    ("the second key", V1.path, {"api-key": "second-key"}),
    ("Entra at FLUX", FLUX.path, {"authorization": f"Bearer {ENTRA_TOKEN}"}),
    ("a wrong api-key and a known bearer at FLUX", FLUX.path, BEARER | {"api-key": "wrong"}),
    ("Entra at MAI", MAI.path, {"authorization": f"Bearer {ENTRA_TOKEN}"}),
]


@pytest.mark.parametrize(("reason", "path", "headers"), ALLOWED, ids=[row[0] for row in ALLOWED])
def test_call_is_allowed(emulator: Emulator, reason: str, path: str, headers: dict[str, str]) -> None:
    body = {"model": "gpt-image-1", "prompt": "chair"}
    assert post(emulator, path, headers, body).status_code == 200, reason


@pytest.mark.parametrize("path", ["flux-pro-1.1", "flux-kontext-pro", "flux-2-pro", "flux-2-flex"])
def test_every_flux_model_has_a_path(emulator: Emulator, path: str) -> None:
    url = f"/providers/blackforestlabs/v1/{path}?api-version=preview"
    assert post(emulator, url, BEARER, {**FLUX.body, "prompt": "chair"}).status_code == 200


@every_route
def test_missing_deployment_is_404(emulator: Emulator, route: Route) -> None:
    path = route.path.replace("gpt-image-1.5", "missing").replace("dall-e-3", "missing")
    body = {**route.body, "prompt": "chair"} | ({"model": "missing"} if "model" in route.body else {})
    answer = post(emulator, path, route.headers, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "DeploymentNotFound")


def test_flux_needs_a_content_length(emulator: Emulator) -> None:
    body = json.dumps({**FLUX.body, "prompt": "chair"}).encode()
    headers = BEARER | {"content-type": "application/json"}
    chunked = requests.post(emulator.base + FLUX.path, data=iter([body]), headers=headers, timeout=30)
    assert (chunked.status_code, chunked.json()["error"]["code"]) == (411, "no_content_length_header")
    assert requests.post(emulator.base + FLUX.path, data=body, headers=headers, timeout=30).status_code == 200


def test_mai_does_not_need_a_content_length(emulator: Emulator) -> None:
    body = json.dumps({**MAI.body, "prompt": "chair"}).encode()
    headers = KEYED | {"content-type": "application/json"}
    assert requests.post(emulator.base + MAI.path, data=iter([body]), headers=headers, timeout=30).status_code == 200


@every_route
def test_form_is_refused(emulator: Emulator, route: Route) -> None:
    answer = requests.post(emulator.base + route.path, data={"prompt": "chair"}, headers=route.headers, timeout=30)
    assert answer.status_code == 400


NO_CREDENTIAL: dict[str, str] = {}
LISTS = [
    ("/openai/v1/models", KEYED, 200, "a key"),
    ("/openai/v1/models?api-version=preview", BEARER, 200, "a key as a bearer token"),
    ("/openai/v1/models", {"authorization": f"Bearer {ENTRA_TOKEN}"}, 200, "Entra"),
    ("/openai/models?api-version=2024-10-21", KEYED, 200, "the dated list"),
    ("/openai/deployments?api-version=2022-12-01", KEYED, 200, "the list of deployments"),
    ("/openai/v1/models", NO_CREDENTIAL, 401, "no credential"),
    ("/openai/v1/models", {"api-key": "wrong"}, 401, "a wrong key"),
    ("/openai/v1/models", {"authorization": "Bearer wrong"}, 401, "a wrong key as a bearer"),
    ("/openai/models", KEYED, 404, "the dated list without a date"),
]


@pytest.mark.parametrize(("path", "headers", "status", "reason"), LISTS, ids=[row[3] for row in LISTS])
def test_model_list_checks_the_credential_for_free(
    emulator: Emulator, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = requests.get(emulator.base + path, headers=headers, timeout=30)
    assert answer.status_code == status, reason
    if status == 200:
        assert answer.json()["object"] == "list"
        assert {"gpt-image-2", "FLUX.2-pro", "MAI-Image-2.5"} <= {entry["id"] for entry in answer.json()["data"]}
    assert emulator.stats()["calls"] == 0


# Faults on request


FILTERED = ["contentFilter", "content_policy_violation", "moderation_blocked"]


@every_route
@pytest.mark.parametrize("code", FILTERED)
def test_filter_error_has_code_and_details(emulator: Emulator, route: Route, code: str) -> None:
    answer = route.call(emulator, "[contentFilter]" if code == "contentFilter" else f"[contentFilter:{code}]")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert error[route.inner]["code"] == "ResponsibleAIPolicyViolation"
    assert error[route.inner]["content_filter_results"]["violence"]["filtered"] is True
    assert len({"inner_error", "innererror"} & error.keys()) == 1
    assert ("type" in error) == route.typed
    assert "x-ms-error-code" not in answer.headers
    assert emulator.stats()["billed"] == 0


@dataclass(frozen=True)
class Fault:
    prompt: str
    answers: list[int | str]
    calls: int
    reason: str


FAULTS = [
    Fault("[call-401]", [401, 401], 0, "without N: always"),
    Fault("[call-403:1]", [403, 200], 1, "the network rules"),
    Fault("[call-blocked:1]", [403, 200], 1, "the whole resource"),
    Fault("[call-404:1]", [404, 200], 1, "a new deployment"),
    Fault("[call-408:1]", [408, 200], 1, "a timeout"),
    Fault("[call-429:2]", [429, 429, 200], 1, "the first two"),
    Fault("[call-500:1] [call-502:1] [call-503:1]", [500, 502, 503, 200], 1, "one after the other"),
    Fault("[call-drop:2]", ["lost", "lost", 200], 3, "each lost response is billed"),
    Fault("[call-cut:1]", ["lost", 200], 2, "half of a response is billed"),
    Fault("[call-garbage:1]", [200, 200], 2, "garbage is billed"),
    Fault("[call-500:1] [contentFilter]", [500, 400, 400], 0, "the filter is last"),
]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.prompt)
@pytest.mark.parametrize("route", [V1, FLUX], ids=lambda route: route.name)
def test_calls_fail_as_asked_and_are_billed(emulator: Emulator, route: Route, row: Fault) -> None:
    tries = statuses(len(row.answers), route.call, emulator, row.prompt)
    assert list(tries) == row.answers, row.reason
    digest = hashlib.sha256(row.prompt.encode()).hexdigest()
    stats = emulator.stats()
    assert (stats["calls"], stats["billed"]) == (row.calls, row.calls)
    assert stats["billed_by_prompt"] == ({digest: row.calls} if row.calls else {})


CODES = [
    ("[call-401]", 401, "401", "Access denied due to invalid subscription key"),
    ("[call-403]", 403, "403", "Access denied due to Virtual Network/Firewall rules."),
    ("[call-blocked]", 403, "Forbidden", "Your resource has been temporarily blocked"),
    ("[call-404]", 404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
    ("[call-408]", 408, "Timeout", "The operation was timeout."),
    ("[call-500]", 500, "InternalServerError", "The server had an error"),
    ("[call-503]", 503, "ServiceUnavailable", "The service is temporarily unable"),
]


@every_route
@pytest.mark.parametrize(("prompt", "status", "code", "message"), CODES, ids=[row[0] for row in CODES])
def test_refusal_has_code_and_message(
    emulator: Emulator, route: Route, prompt: str, status: int, code: str, message: str
) -> None:
    answer = route.call(emulator, prompt)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"].startswith(message)
    assert "retry-after" not in answer.headers


def test_502_is_html(emulator: Emulator) -> None:
    answer = MAI.call(emulator, "[call-502]")
    assert answer.headers["content-type"].startswith("text/html")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_garbage_is_not_json(emulator: Emulator) -> None:
    answer = MAI.call(emulator, "[call-garbage]")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_cut_response_is_shorter_than_content_length(emulator: Emulator) -> None:
    url, body = emulator.base + MAI.path, json.dumps({**MAI.body, "prompt": "[call-cut:1]"})
    headers = KEYED | {"content-type": "application/json"}
    with requests.post(url, data=body, headers=headers, stream=True, timeout=30) as answer:
        promised = int(answer.headers["content-length"])
        with pytest.raises(urllib3.exceptions.ProtocolError) as broken:
            answer.raw.read()
    assert f"IncompleteRead({promised // 2} bytes read" in str(broken.value)
    whole = MAI.call(emulator, "[call-cut:1]")
    assert len(whole.content) == promised


WAITS: list[tuple[str, str | None, str | None, str]] = [
    ("[call-429]", "1", "1000", "both"),
    ("[call-429] [retry-after:7]", "7", None, "seconds alone"),
    ("[call-429] [retry-after-ms:250]", None, "250", "milliseconds alone"),
    ("[call-429] [retry-after:7] [retry-after-ms:6500]", "7", "6500", "both as given"),
    ("[call-429] [retry-after:soon]", "soon", None, "not a number"),
    ("[call-429] [call-no-retry-after]", None, None, "neither"),
    ("[call-503] [retry-after:9]", "9", None, "a 503"),
]


@pytest.mark.parametrize(("prompt", "seconds", "thousandths", "reason"), WAITS, ids=[row[0] for row in WAITS])
def test_refusal_has_the_requested_wait(
    emulator: Emulator, prompt: str, seconds: str | None, thousandths: str | None, reason: str
) -> None:
    answer = FLUX.call(emulator, prompt)
    waits = (answer.headers.get("retry-after"), answer.headers.get("retry-after-ms"))
    assert waits == (seconds, thousandths), reason


@every_route
def test_429_has_the_code_of_its_api(emulator: Emulator, route: Route) -> None:
    assert route.call(emulator, "[call-429]").json()["error"]["code"] == route.rate_limited


def test_hanging_call_is_billed(emulator: Emulator) -> None:
    with pytest.raises(requests.ReadTimeout):
        MAI.call(emulator, "[call-hang:60]", timeout=3)
    assert emulator.stats()["calls"] == 1
    assert MAI.call(emulator, "[call-hang:0.01]").status_code == 200


def test_slow_call_is_billed_at_its_start(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--seconds", "60", "--speed", "2") as emulator:
        with pytest.raises(requests.ReadTimeout):
            MAI.call(emulator, "chair", timeout=3)
        assert emulator.stats()["calls"] == 1
        started = time.monotonic()
        assert MAI.call(emulator, "[seconds:0.2]").status_code == 200
        assert 0.2 <= time.monotonic() - started < 20


@pytest.mark.parametrize("route", [V1, MAI], ids=lambda route: route.name)
def test_image_is_padded_on_request(emulator: Emulator, route: Route) -> None:
    item = route.call(emulator, "[bytes:3000001]").json()["data"][0]
    assert len(base64.b64decode(item["b64_json"])) == 3_000_001
    assert opened(item).format == "PNG"


def test_response_with_ten_large_images(emulator: Emulator) -> None:
    answer = V1.call(emulator, "[bytes:2000000]", n=10)
    assert int(answer.headers["content-length"]) == len(answer.content) > 26_000_000
    assert [len(base64.b64decode(item["b64_json"])) for item in answer.json()["data"]] == [2_000_000] * 10


def test_image_behind_a_url_is_padded_too(emulator: Emulator) -> None:
    url = FLUX.call(emulator, "[url] [bytes:1000000]").json()["data"][0]["url"]
    assert len(emulator.image(url).content) == 1_000_000


# Quotas


def test_429_beyond_the_quota_names_the_wait(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0", "--quota", "2", "--quota-window", "1000") as emulator:
        answers = [FLUX.call(emulator, f"chair {number}") for number in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0", "0"]
        refused = answers[2]
        assert refused.json()["error"]["code"] == "RateLimitReached"
        assert 900 <= int(refused.headers["retry-after"]) <= 1000
        assert 0 <= int(refused.headers["retry-after"]) - int(refused.headers["retry-after-ms"]) / 1000 < 1
        assert MAI.call(emulator, "chair").status_code == 200, "each deployment has its own quota"
        assert counts(emulator, FLUX) == {"requests": 4, "calls": 2, "billed": 2, "throttled": 2, "early_retries": 0}
        details = deployment_stats(emulator, FLUX)
        assert (len(details["call_times"]), len(details["throttled_times"])) == (2, 2)
        assert details["call_times"] + details["throttled_times"] == sorted(
            details["call_times"] + details["throttled_times"]
        )
        emulator.reset()
        assert FLUX.call(emulator, "chair").status_code == 200, "a reset starts a new window"


def test_invalid_call_does_not_use_the_quota(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0", "--quota", "1", "--quota-window", "1000") as emulator:
        assert FLUX.call(emulator, "chair", width=1).status_code == 400
        assert FLUX.call(emulator, "chair").status_code == 200


def test_requested_429_is_counted(emulator: Emulator) -> None:
    assert list(statuses(3, FLUX.call, emulator, "[call-429:1]")) == [429, 200, 200]
    assert counts(emulator, FLUX) == {"requests": 3, "calls": 2, "billed": 2, "throttled": 1, "early_retries": 0}


def test_retry_before_the_end_of_its_own_wait_is_counted(emulator: Emulator) -> None:
    def call(client_request_id: str, prompt: str) -> int:
        headers = FLUX.headers | {"x-ms-client-request-id": client_request_id}
        return post(emulator, FLUX.path, headers, {**FLUX.body, "prompt": prompt}).status_code

    assert [call("a", "[call-429:1] [retry-after:1000]") for _ in range(2)] == [429, 200]
    assert call("b", "another sender does not know of the wait") == 200
    assert call("c", "[call-429:1] [call-no-retry-after]") == 429
    assert call("c", "no wait was named") == 200
    assert FLUX.call(emulator, "no client request id").status_code == 200
    assert deployment_stats(emulator, FLUX)["early_retries"] == 1


# Counters


def test_stats_count_billed_calls_by_prompt_and_id(emulator: Emulator) -> None:
    for number, (route, prompt) in enumerate(itertools.product((FLUX, MAI), ("one", "two"))):
        headers = route.headers | {"x-ms-client-request-id": f"id-{number}"}
        body = {**route.body, "prompt": prompt}
        for _ in range(1 + (number == 3)):
            post(emulator, route.path, headers, body)
    FLUX.call(emulator, "one", num_images=4)
    stats = emulator.stats()
    one, two = (hashlib.sha256(prompt).hexdigest() for prompt in (b"one", b"two"))
    assert (stats["calls"], stats["billed"]) == (6, 9)
    assert stats["billed_by_prompt"] == {one: 3, two: 3}
    assert stats["billed_by_client_request_id"] == {"id-0": 1, "id-1": 1, "id-2": 1, "id-3": 2}
    assert counts(emulator, FLUX) == {"requests": 3, "calls": 3, "billed": 6, "throttled": 0, "early_retries": 0}
    assert counts(emulator, MAI) == {"requests": 3, "calls": 3, "billed": 3, "throttled": 0, "early_retries": 0}


@pytest.mark.parametrize(("quality", "missing"), [("low", 0), ("auto", 0), (None, 1)])
def test_gpt_image_call_without_quality_is_counted(emulator: Emulator, quality: str | None, missing: int) -> None:
    assert V1.call(emulator, "chair", quality=quality).status_code == 200
    assert emulator.stats()["missing_quality"] == missing


def test_log_and_stats_hold_no_prompt_and_no_key(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0", "--quota", "3") as emulator:
        for route, prompt in ((V1, "unspeakable"), (FLUX, "unspeakable [call-500]"), (MAI, "unspeakable [call-drop]")):
            list(statuses(1, route.call, emulator, prompt))
        stats = json.dumps(emulator.stats())
        emulator.process.terminate()
        assert emulator.process.wait(60) == 0
        written = emulator.log.read_text()
    assert {line.split()[2]: line.split()[3] for line in written.splitlines()} == {
        urlsplit(V1.path).path: "200",
        urlsplit(FLUX.path).path: "500",
        urlsplit(MAI.path).path: "closed",
        "/_emulator/stats": "200",
    }
    for secret in ("unspeakable", KEY, "?"):
        assert secret not in written + stats


def test_200_concurrent_calls_are_billed_once_each(emulator: Emulator) -> None:
    prompts = [f"chair {number}" for number in range(200)]

    def call(prompt: str) -> requests.Response:
        return FLUX.call(emulator, prompt, timeout=120)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(call, prompts))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 200
    assert emulator.stats()["billed_by_prompt"] == {
        hashlib.sha256(prompt.encode()).hexdigest(): 1 for prompt in prompts
    }
