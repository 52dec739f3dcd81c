"""Deployments from `IMAGE_DEPLOYMENTS` and from the `AZURE_OPENAI_*` settings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from imagegen.deployments import Deployment
from imagegen.settings import DEFAULT_SCOPE, SettingsError, read_settings

ENDPOINT = "https://images.example.com"
SIMPLE = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "AZURE_OPENAI_ENDPOINT": ENDPOINT,
    "AZURE_OPENAI_API_KEY": "the-usual-key",
    "POLL_SCHEDULE": "0 * * * * *",
}


def read(entries: object = None, **given: str) -> tuple[Deployment, ...]:
    """An empty string counts as missing. `entries` is sent as JSON, or as it is if it is text."""
    text = entries if isinstance(entries, str) else json.dumps(entries)
    several = {} if entries is None else {"IMAGE_DEPLOYMENTS": text}
    return read_settings(SIMPLE | several | given).deployments


def problems(entries: object = None, **given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(entries, **given)
    assert caught.value.__cause__ is None
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    # Each line ends with an example, of the setting or of the field.
    assert all(re.search(r""" Example: (\w+=\S.*|"\w+": (".+"|\d+))$""", line) for line in lines), lines
    return [line.partition(" Example: ")[0] for line in lines]


def test_settings_are_the_defaults_of_an_entry() -> None:
    first, second = read(
        [
            {"name": "fast", "api": "images"},
            {
                "name": "fine",
                "api": "flux",
                "endpoint": "https://flux.example.com/",
                "deployment": "FLUX.2-pro",
                "apiVersion": "2026-01-01-preview",
                "apiKeySetting": "FLUX_KEY",
                "modelPath": "flux-2-flex",
            },
        ],
        FLUX_KEY="another-key",
        AZURE_OPENAI_API_VERSION="preview",
    )
    assert (first.name, first.deployment, first.endpoint) == ("fast", "fast", ENDPOINT)
    assert (first.api_version, first.model_path, first.scope) == ("preview", None, DEFAULT_SCOPE)
    assert first.api_key
    assert first.api_key.get_secret_value() == "the-usual-key"
    assert (second.name, second.deployment, second.endpoint) == ("fine", "FLUX.2-pro", "https://flux.example.com")
    assert (second.api_version, second.model_path) == ("2026-01-01-preview", "flux-2-flex")
    assert second.api_key
    assert second.api_key.get_secret_value() == "another-key"


def test_deployment_without_a_key_uses_entra_id() -> None:
    [found] = read([{"name": "a", "api": "mai"}], AZURE_OPENAI_API_KEY="")
    assert found.api_key is None


@pytest.mark.parametrize(
    ("main", "endpoint", "inherits"),
    [
        (ENDPOINT, None, True),
        (ENDPOINT, f"{ENDPOINT}/", True),
        (ENDPOINT, f"{ENDPOINT.upper().replace('HTTPS', 'https')}:443/gateway", True),
        (ENDPOINT, "https://other.example.com", False),
        (ENDPOINT, f"{ENDPOINT}.evil.example", False),
        (ENDPOINT, f"{ENDPOINT}:8443", False),
        ("", ENDPOINT, False),  # the key has no origin of its own
    ],
)
def test_main_key_stays_at_its_origin(main: str, endpoint: str | None, inherits: bool) -> None:
    entry = WHOLE | ({"endpoint": endpoint} if endpoint else {})
    [found] = read([entry], AZURE_OPENAI_ENDPOINT=main)
    assert (found.api_key.get_secret_value() if found.api_key else None) == ("the-usual-key" if inherits else None)
    [named] = read([entry | {"apiKeySetting": "OWN_KEY"}], AZURE_OPENAI_ENDPOINT=main, OWN_KEY="its-own-key")
    assert named.api_key
    assert named.api_key.get_secret_value() == "its-own-key"


def test_list_replaces_the_single_deployment_in_order() -> None:
    entries = [{"name": name, "api": "images"} for name in ("b", "a", "c")]
    assert [found.name for found in read(entries, AZURE_OPENAI_DEPLOYMENT="other")] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("api", "entry", "simple", "expected"),
    [
        ("images", None, "", None),  # the v1 route
        ("flux", None, "", "preview"),
        ("mai", None, "", None),  # no version in its route
        ("operations", None, "", "2023-06-01-preview"),
        ("images", None, "2025-04-01-preview", "2025-04-01-preview"),
        # AZURE_OPENAI_API_VERSION is for AZURE_OPENAI_API only.
        ("flux", None, "2025-04-01-preview", "preview"),
        ("operations", None, "preview", "2023-06-01-preview"),
        ("images", "latest", "preview", "latest"),
        ("operations", "2023-10-01-preview", "", "2023-10-01-preview"),
    ],
)
def test_default_version_of_each_api(api: str, entry: str | None, simple: str, expected: str | None) -> None:
    given = {"name": "flux-2-pro", "api": api} | ({"apiVersion": entry} if entry else {})
    [found] = read([given], AZURE_OPENAI_API_VERSION=simple)
    assert found.api_version == expected


@pytest.mark.parametrize(
    ("deployment", "expected"),
    [
        ("FLUX-1.1-pro", "flux-pro-1.1"),
        ("FLUX.1-Kontext-pro", "flux-kontext-pro"),
        ("FLUX.2-pro", "flux-2-pro"),
        ("FLUX.2-flex", "flux-2-flex"),
        ("flux.2-PRO", "flux-2-pro"),  # case does not matter
        ("flux-pro-1.1", "flux-pro-1.1"),  # a path already
        ("flux-kontext-pro", "flux-kontext-pro"),
        ("flux-2-pro", "flux-2-pro"),
        ("FLUX-2-FLEX", "flux-2-flex"),
    ],
)
def test_flux_route_follows_from_the_deployment_name(deployment: str, expected: str) -> None:
    [found] = read([{"name": "any", "api": "flux", "deployment": deployment}])
    [simple] = read(AZURE_OPENAI_API="flux", AZURE_OPENAI_DEPLOYMENT=deployment)
    assert found.model_path == simple.model_path == expected


def test_flux_deployment_with_another_name_needs_a_path() -> None:
    [problem] = problems([{"name": "our-flux", "api": "flux"}])
    assert problem.startswith("IMAGE_DEPLOYMENTS.0.modelPath: ")
    [problem] = problems(AZURE_OPENAI_API="flux", AZURE_OPENAI_DEPLOYMENT="our-flux")
    assert problem.startswith("AZURE_OPENAI_DEPLOYMENT: ")  # the setting that exists
    [found] = read([{"name": "our-flux", "api": "flux", "modelPath": "flux-3"}])
    assert found.model_path == "flux-3"


def test_model_path_of_another_api_is_refused() -> None:
    [problem] = problems([{"name": "a", "api": "images", "modelPath": "flux-2-pro"}])
    assert problem == ("IMAGE_DEPLOYMENTS.0.modelPath: belongs to the API 'flux', but the api is 'images'. Remove it.")


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"name": "gpt\u2013image"}, "name"),
        ({"name": "a", "deployment": "gpt\u2013image"}, "deployment"),
        ({"name": "a", "endpoint": "https://a.example.com/openai/deployments/gpt\u2013image"}, "endpoint"),
    ],
)
def test_character_outside_ascii_in_a_deployment_is_named(entry: dict[str, str], field: str) -> None:
    [problem] = problems([{"api": "images", **entry}])
    assert problem.startswith(
        f"IMAGE_DEPLOYMENTS.0.{field}: has a name of a deployment that contains the character U+2013 (en dash). "
    )


def test_name_may_have_any_letters_beside_a_deployment() -> None:
    [found] = read([{"name": "gr\u00f6\u00dfe", "api": "images", "deployment": "gpt-image-2"}])
    assert (found.name, found.deployment) == ("gr\u00f6\u00dfe", "gpt-image-2")


def test_list_may_have_a_byte_order_mark() -> None:
    [found] = read('\ufeff[{"name": "a", "api": "images"}]')
    assert found.name == "a"


WHOLE = {"name": "a", "api": "images"}
FIELDS = "name, api, endpoint, deployment, apiVersion, apiKeySetting, modelPath, requestsPerMinute"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("s3cret", ": is not valid JSON (line 1 column 1). Check the quotes, commas and brackets there."),
        (
            '[{"name": "s3cret", "api": "images"}',
            ": is not valid JSON (line 1 column 37). The end is missing. ",
        ),  # cut by shell quoting
        # Not the whole of an object: brackets around it would not make it a list.
        (
            '{"name": "s3cret", "n": 1',
            ": is not valid JSON (line 1 column 26). The end is missing. ",
        ),
        (
            '[{"name": "s3cret\udcff", "api": "images"}]',  # bytes of the environment that are not UTF-8
            ": is not valid JSON (line 1 column 18). Remove the character that is not valid Unicode.",
        ),
        ("[{'name': 's3cret'}]", ": has quotes that JSON does not know. Use double quotes "),  # Python's
        ("[{\u201cname\u201d: \u201cs3cret\u201d}]", ": has quotes that JSON does not know. Use double quotes "),
        ('[{"name": "s3cret", "api": "images",}]', ": is not valid JSON (line 1 column 36). Remove the comma before "),
        (
            '[{"name": "s3cret", "api": }]',
            ": is not valid JSON (line 1 column 28). A value is missing after the colon.",
        ),
        ('[{"name": "s3cret", "name": "b"}]', ": has the field 'name' twice in one object. Write it once."),
        (
            f'[{{"{"s3cret" * 4}": 1, "{"s3cret" * 4}": 1}}]',
            ": has the field a text of 24 characters twice in one object.",
        ),
        ("[1e999]", ": has a number that is too large."),
        ("[" * 1_000 + "]" * 1_000, ": is not valid JSON. It has too many levels of { or [."),
        ('"s3cret"', ': has quotes (") around its value. Remove them.'),
        ("'[]'", ": has quotes (') around its value. Remove them."),  # a shell's
        ("5", ": is not a JSON list. Use a list of objects."),
        ({"name": "s3cret", "api": "images"}, ": is one JSON object, not a list. Put it in square brackets."),
        ([], ": is an empty list. Add a deployment, or remove the setting."),
        (["s3cret"], ".0: is not a JSON object. Use an object with the fields of a deployment."),
        ([{"api": "images"}], ".0.name: is missing. Set it."),
        ([{"name": "s3cret"}], ".0.api: is missing. Set it."),
        ([WHOLE | {"name": ""}], ".0.name: is empty. Set it, or leave it out."),
        # Longer than the `model` of a request.
        ([WHOLE | {"name": "s3cret" * 22}], ".0.name: has too many characters. Use 128 or fewer."),
        ([WHOLE | {"name": 5}], ".0.name: is not text. Put it in quotes."),
        ([WHOLE | {"api": "s3cret"}], ".0.api: is not a known value. Use 'operations', 'images', 'flux' or 'mai'."),
        ([WHOLE, WHOLE | {"name": "b", "endpoint": "s3cret"}], ".1.endpoint: is not an http or https URL. "),
        ([WHOLE | {"endpoint": "http://s3cret.example.com"}], ".0.endpoint: uses http, which is "),
        ([WHOLE | {"endpoint": {"base": "http://s3cret.example.com"}}], ".0.endpoint: is not text. Put it in quotes."),
        ([WHOLE | {"endpoint": 5}], ".0.endpoint: is not text. Put it in quotes."),
        ([WHOLE | {"endpoint": ["https://s3cret.example.com"]}], ".0.endpoint: is not text. Put it in quotes."),
        ([WHOLE | {"endpoint": "https://u:s3cret@a.example.com"}], ".0.endpoint: contains a user or "),
        ([WHOLE | {"deployment": ""}], ".0.deployment: is empty. "),
        ([WHOLE | {"apiVersion": "s3cret"}], ".0.apiVersion: is not an API version. "),
        ([WHOLE | {"apiVersion": "preview&s3cret"}], ".0.apiVersion: is not an API version. "),
        ([WHOLE | {"apiVersion": "2025-04-01-previews3cret"}], ".0.apiVersion: is not an API version. "),
        ([WHOLE | {"modelPath": "../s3cret"}], ".0.modelPath: is not a part of a route. "),
        ([WHOLE | {"modelPath": "flux?s3cret"}], ".0.modelPath: is not a part of a route. "),
        # Control characters, which no editor shows.
        ([WHOLE | {"name": "a\u0000s3cret"}], ".0.name: contains the invisible character U+0000. Remove it."),
        (
            [WHOLE | {"deployment": "a\u200bs3cret"}],
            ".0.deployment: contains the invisible character U+200B (zero width space). Remove it.",
        ),
        # A key as the name of a field.
        ([WHOLE | {"s3cret" * 4: 1}], f".0.(a text of 24 characters): is not a field of a deployment. Use {FIELDS}."),
        ([WHOLE | {"s3cret\n": 1}], f".0.(a text of 7 characters): is not a field of a deployment. Use {FIELDS}."),
        # A typo in a field name must not be ignored. Keys have settings of their own.
        ([WHOLE | {"apiKey": "s3cret"}], f".0.apiKey: is not a field of a deployment. Use {FIELDS}."),
        ([WHOLE | {"api_version": "s3cret"}], ".0.api_version: is not a field of a deployment. Use apiVersion."),
        ([WHOLE | {"apiversion": "s3cret"}], ".0.apiversion: is not a field of a deployment. Use apiVersion."),
        ([WHOLE | {"api-key-setting": "x"}], ".0.api-key-setting: is not a field of a deployment. Use apiKeySetting."),
        ([WHOLE | {"Endpoint": "x"}], ".0.Endpoint: is not a field of a deployment. Use endpoint."),
        (
            [WHOLE | {"name": "<s3cret>"}],
            ".0.name: looks like a placeholder. Write your value instead, without the brackets.",
        ),
        ([WHOLE | {"deployment": "'s3cret'"}], ".0.deployment: has quotes (') around its value. Remove them."),
        ([WHOLE | {"deployment": "s3cret two"}], ".0.deployment: contains a blank or a line break. Remove it."),
        ([WHOLE | {"endpoint": "https://YOUR-RESOURCE.openai.azure.com"}], ".0.endpoint: has the placeholder "),
        ([WHOLE | {"apiKeySetting": "S3CRET"}], ".0.apiKeySetting: names a setting that is missing. Add it, "),
        ([WHOLE, WHOLE], ".1.name: is also the name of another entry, for the same deployment. "),
        ([WHOLE | {"requestsPerMinute": 0}], ".0.requestsPerMinute: is too small. Use 1 or more."),
        ([WHOLE | {"requestsPerMinute": -1}], ".0.requestsPerMinute: is too small. Use 1 or more."),
        ([WHOLE | {"requestsPerMinute": 100_001}], ".0.requestsPerMinute: is too large. Use 100000 or less."),
        ([WHOLE | {"requestsPerMinute": 1.5}], ".0.requestsPerMinute: is not a whole number. Use digits only."),
        ([WHOLE | {"requestsPerMinute": True}], ".0.requestsPerMinute: is not a whole number. Use digits only."),
        ([WHOLE | {"requestsPerMinute": "ten"}], ".0.requestsPerMinute: is not a whole number. Use digits only."),
        ([WHOLE | {"requestsPerMinute": ["s3cret"]}], ".0.requestsPerMinute: is not a whole number. Use digits only."),
        ([WHOLE | {"requestsPerMinute": ""}], ".0.requestsPerMinute: is not a whole number. Use digits only."),
        ([WHOLE | {"requests_per_minute": 5}], ".0.requests_per_minute: is not a field of a deployment. "),
    ],
)
def test_wrong_entry_is_named_by_its_place_but_not_shown(entries: Any, expected: str) -> None:
    [problem] = problems(entries)
    assert problem.startswith(f"IMAGE_DEPLOYMENTS{expected}")
    assert problem.endswith(".")
    assert "s3cret" not in problem.lower()


def test_every_problem_of_the_list_is_reported_at_once() -> None:
    entries = [
        {"name": "a", "api": "flux"},
        {"name": "a", "api": "images", "apiKeySetting": "NOT_THERE"},
    ]
    named = [problem.partition(":")[0] for problem in problems(entries)]
    assert sorted(named) == [
        "IMAGE_DEPLOYMENTS.0.modelPath",
        "IMAGE_DEPLOYMENTS.1.apiKeySetting",
        "IMAGE_DEPLOYMENTS.1.name",
    ]


def test_endpoint_of_an_entry_or_of_the_settings_is_enough() -> None:
    entries = [WHOLE, {"name": "b", "api": "mai", "endpoint": "https://mai.example.com"}]
    [problem] = problems(entries, AZURE_OPENAI_ENDPOINT="")
    assert problem == (
        "AZURE_OPENAI_ENDPOINT: is missing, and so is IMAGE_DEPLOYMENTS.0.endpoint. Set one of them to the URL of the "
        "image service."
    )
    assert len(read(entries[1:], AZURE_OPENAI_ENDPOINT="")) == 1
    assert problems(AZURE_OPENAI_DEPLOYMENT="a", AZURE_OPENAI_ENDPOINT="") == [
        "AZURE_OPENAI_ENDPOINT: is missing. Set it to the URL of the image service."
    ]


@pytest.mark.parametrize(("given", "expected"), [(10, 10), ("10", 10), (100_000, 100_000), (None, None)])
def test_quota_of_an_entry(given: Any, expected: int | None) -> None:
    [found] = read([WHOLE | {"requestsPerMinute": given}])
    assert found.requests_per_minute == expected


def test_quota_of_the_settings_is_that_of_the_single_deployment() -> None:
    [single] = read(AZURE_OPENAI_DEPLOYMENT="a", AZURE_OPENAI_REQUESTS_PER_MINUTE="7")
    assert single.requests_per_minute == 7
    [entry] = read([WHOLE], AZURE_OPENAI_REQUESTS_PER_MINUTE="7")  # quotas differ: no entry inherits one
    assert entry.requests_per_minute is None


POOL = [
    {"name": "gpt-image-2", "api": "images", "requestsPerMinute": 10},
    {
        "name": "gpt-image-2",
        "api": "images",
        "endpoint": "https://second.example.com",
        "apiKeySetting": "SECOND_KEY",
        "requestsPerMinute": 6,
    },
    {"name": "gpt-image-2", "api": "images", "endpoint": "https://third.example.com"},
]


def test_entries_with_one_name_are_a_pool() -> None:
    """Each has its own quota and key. The main key stays at its origin."""
    found = read(POOL, SECOND_KEY="its-own-key")
    assert [(one.name, one.address, one.requests_per_minute) for one in found] == [
        ("gpt-image-2", "images.example.com/gpt-image-2", 10),
        ("gpt-image-2", "second.example.com/gpt-image-2", 6),
        ("gpt-image-2", "third.example.com/gpt-image-2", None),
    ]
    keys = [one.api_key.get_secret_value() if one.api_key else None for one in found]
    assert keys == ["the-usual-key", "its-own-key", None]


def test_pool_may_share_a_host_or_have_other_names_there() -> None:
    """Two deployments of one account, and two services behind the paths of one gateway."""
    account = [WHOLE | {"deployment": name} for name in ("first", "second")]
    assert [one.address for one in read(account)] == ["images.example.com/first", "images.example.com/second"]
    gateway = [WHOLE | {"endpoint": f"{ENDPOINT}/{path}"} for path in ("eastus2", "westus3")]
    assert [one.address for one in read(gateway)] == ["images.example.com/eastus2/a", "images.example.com/westus3/a"]


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("https://IMAGES.example.com:443/", "images.example.com/a"),
        ("https://images.example.com:8443", "images.example.com:8443/a"),
        ("http://127.0.0.1:7072", "127.0.0.1:7072/a"),
        ("https://[2001:DB8::1]:8443/gateway/openai/v1/", "[2001:db8::1]:8443/gateway/a"),
    ],
)
def test_address_is_the_same_in_any_spelling_of_the_endpoint(endpoint: str, address: str) -> None:
    [found] = read([WHOLE | {"endpoint": endpoint}])
    assert found.address == address


def test_address_holds_no_secret_of_the_path() -> None:
    """Logs show it. A gateway may have a key in its path."""
    key = "0f3c9a7e" * 4
    [first, second] = read([WHOLE | {"endpoint": f"{ENDPOINT}/{one}/x"} for one in (key, key[::-1])])
    assert re.fullmatch(r"images\.example\.com/[0-9a-f]{8}/x/a", first.address)
    assert first.address != second.address


@pytest.mark.parametrize(
    "again",
    [
        {},
        {"endpoint": f"{ENDPOINT}/"},
        {"endpoint": "https://IMAGES.example.com:443"},
        {"endpoint": f"{ENDPOINT}/openai/v1/"},
        {"endpoint": f"{ENDPOINT}/openai/deployments/a/images/generations"},
        {"deployment": "A"},
        {"requestsPerMinute": 5, "apiVersion": "2025-04-01-preview"},
    ],
)
def test_pool_has_no_deployment_twice(again: dict[str, Any]) -> None:
    [problem] = problems([WHOLE, WHOLE | again])
    assert problem == (
        "IMAGE_DEPLOYMENTS.1.name: is also the name of another entry, for the same deployment. Entries with one name "
        "are a pool of different deployments. Change the name, endpoint or deployment, or remove the entry."
    )


def test_one_deployment_may_have_two_names() -> None:
    assert [one.name for one in read([WHOLE, WHOLE | {"name": "b", "deployment": "a"}])] == ["a", "b"]


@pytest.mark.parametrize(
    ("api", "more", "expected"),
    [
        (
            "operations",
            {},
            (
                ".1.name: is also the name of another entry. Entries with one name are a pool, which the API "
                "'operations' cannot have: the app must repeat a submit at the same deployment. Use another name."
            ),
        ),
        (
            "images",
            {"api": "mai"},
            (
                ".1.api: differs from that of another entry with the same name. Entries with one name are a pool, and "
                "have one api. Change the name or the api."
            ),
        ),
        (
            "flux",
            {"modelPath": "flux-2-flex"},
            (
                ".1.modelPath: differs from that of another entry with the same name. Entries with one name are a pool "
                "of one model. Change the name, modelPath or deployment."
            ),
        ),
    ],
)
def test_pool_is_of_one_model(api: str, more: dict[str, str], expected: str) -> None:
    entry = {"name": "flux-2-pro", "api": api}
    assert problems([entry, entry | {"endpoint": "https://b.example.com"} | more]) == [f"IMAGE_DEPLOYMENTS{expected}"]


@pytest.mark.parametrize("api", ["images", "flux", "mai"])
def test_direct_apis_need_a_deployment_name(api: str) -> None:
    [problem] = problems(AZURE_OPENAI_API=api)
    assert problem.startswith("AZURE_OPENAI_DEPLOYMENT: is missing. Set it to the name of the deployment. ")


def test_deployment_name_has_at_most_128_characters() -> None:
    [problem] = problems(AZURE_OPENAI_DEPLOYMENT="s" * 129)
    assert problem == "AZURE_OPENAI_DEPLOYMENT: has 129 characters; the limit is 128. Use a shorter name."
    assert read(AZURE_OPENAI_DEPLOYMENT="s" * 128)[0].name == "s" * 128


@pytest.mark.parametrize("api", ["Images", "IMAGES", " images "])
def test_case_and_blanks_around_an_api_do_not_matter(api: str) -> None:
    [found] = read([{"name": " a ", "api": api, "apiVersion": " Preview"}])
    assert (found.name, found.api, found.api_version) == ("a", "images", "preview")


def test_printed_deployment_shows_no_key() -> None:
    found = read([WHOLE | {"apiKeySetting": "OTHER"}], OTHER="s3cret")
    assert "s3cret" not in repr(found)
