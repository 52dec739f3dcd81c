"""A base URL that ends with a slash: no repeated slash is a way around the function key."""

from __future__ import annotations

from collections.abc import Generator
from urllib.parse import urlsplit

import pytest
import requests

from local.azurite import azurite
from local.stack import Stack, app_environment, emulator, functions_host
from tests.clients.conftest import COMPAT_KEY, stats

KEY = "the-function-key"
WITH_KEY = {"x-functions-key": KEY}
SUBMIT = "openai/images/generations:submit?api-version=2023-06-01-preview"


@pytest.fixture(scope="module")
def locked() -> Generator[Stack]:
    """An app whose host checks the function key."""
    with azurite() as storage, emulator("--speed", "0") as (emulator_url, emulator_child):
        env = app_environment(storage.connection_string, emulator_url, COMPAT_API_KEYS=COMPAT_KEY)
        with functions_host(env, function_key=KEY) as (base_url, host):
            yield Stack(base_url, emulator_url, storage, host, emulator_child, KEY)


def send(stack: Stack, method: str, path: str, headers: dict[str, str], *, follow: bool = True) -> requests.Response:
    """Send the path exactly as it is, after the base URL."""
    request = requests.Request(method, stack.base_url, headers=headers, json={"prompt": "a lighthouse"})
    prepared = request.prepare()
    prepared.url = f"{stack.base_url}{path}"
    with requests.Session() as session:
        return session.send(prepared, timeout=30, allow_redirects=follow)


@pytest.mark.parametrize(
    "path",
    [
        *("/generations", "//generations", "///generations", "//generations//", "//Generations"),
        *("/%2Fgenerations", "/./generations", "/.//generations", "//./generations", "/%2e/%2e/generations"),
        *("/x/..//generations", "//%67enerations", "//generations%2F", "/\\generations", "//generations?code=wrong"),
    ],
)
def test_start_without_a_key_starts_nothing(locked: Stack, path: str) -> None:
    before = stats(locked)["submits"]
    for headers in ({}, {"x-functions-key": "wrong"}, {"api-key": COMPAT_KEY}):
        assert send(locked, "POST", path, headers).status_code in (401, 404)
        assert send(locked, "GET", path, headers).status_code in (401, 404)
    listed = requests.get(f"{locked.base_url}/generations?code={KEY}", timeout=30).json()["value"]
    assert [one for one in listed if one["request"]["prompt"] == "a lighthouse"] == []
    assert stats(locked)["submits"] == before


@pytest.mark.parametrize("path", ["//evil.example/generations", "//evil.example//generations", "/%2Fevil.example"])
def test_path_with_a_host_is_not_redirected(locked: Stack, path: str) -> None:
    answer = send(locked, "POST", path, WITH_KEY, follow=False)
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)


def test_redirect_ignores_the_host_header(locked: Stack) -> None:
    # With this machine in Host, the app can name its own URL. Another Host tells it nothing.
    forwarded = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    answer = send(locked, "POST", "//generations?a=b", forwarded, follow=False)
    assert (answer.status_code, answer.headers.get("Location")) == (308, f"{locked.base_url}/generations?a=b")
    forged = send(locked, "POST", "//generations?a=b", {"Host": "evil.example", **forwarded}, follow=False)
    assert (forged.status_code, forged.headers.get("Location")) == (503, None)
    assert "evil.example" not in f"{forged.headers}{forged.text}"


@pytest.mark.parametrize(
    ("path", "headers"),
    [("//generations", WITH_KEY), ("///generations//", WITH_KEY), (f"//generations?code={KEY}", {})],
)
def test_start_with_the_key_is_202(locked: Stack, path: str, headers: dict[str, str]) -> None:
    answer = send(locked, "POST", path, headers)
    assert answer.status_code == 202
    assert [one.status_code for one in answer.history] == [308]
    assert urlsplit(answer.history[0].headers["Location"]).path == "/api/generations"
    monitor = answer.json()["urls"]["self"]
    # What needs no function key is answered at once, without a redirect.
    found = requests.get(monitor.replace("/generations/", "//generations///"), timeout=30, allow_redirects=False)
    assert (found.status_code, found.json()["id"]) == (200, answer.json()["id"])
    assert requests.delete(monitor.replace("/generations/", "//generations/"), timeout=30).status_code == 204
    assert requests.get(monitor, timeout=30).status_code == 404


def test_list_keeps_its_query(locked: Stack) -> None:
    answer = send(locked, "GET", "//generations?status=failed&maxpagesize=0", WITH_KEY)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "maxpagesize")


def test_retired_api_needs_no_redirect(locked: Stack) -> None:
    answer = send(locked, "POST", f"//{SUBMIT}", {"api-key": COMPAT_KEY}, follow=False)
    assert answer.status_code == 202
    operation = answer.headers["operation-location"]
    assert "//openai" not in operation
    assert requests.get(operation, headers={"api-key": COMPAT_KEY}, timeout=30).status_code == 200
    assert requests.delete(operation, headers={"api-key": COMPAT_KEY}, timeout=30).status_code == 204
    assert send(locked, "POST", f"//{SUBMIT}", {"api-key": "wrong"}, follow=False).status_code == 401
