"""Where images can come from: what `IMAGE_DEPLOYMENTS` and the simple settings come to, and what they may not be."""

from __future__ import annotations

import json
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
    """A setting given as "" is not set. Entries go as JSON, text as it is."""
    text = entries if isinstance(entries, str) else json.dumps(entries)
    several = {} if entries is None else {"IMAGE_DEPLOYMENTS": text}
    return read_settings(SIMPLE | several | given).deployments


def problems(entries: object = None, **given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(entries, **given)
    assert caught.value.__cause__ is None
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_what_an_entry_leaves_out_is_taken_from_the_simple_settings() -> None:
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


def test_without_any_key_the_app_signs_in_with_entra_id() -> None:
    [found] = read([{"name": "a", "api": "mai"}], AZURE_OPENAI_API_KEY="")
    assert found.api_key is None


def test_the_list_takes_the_place_of_the_single_deployment_and_keeps_its_order() -> None:
    entries = [{"name": name, "api": "images"} for name in ("b", "a", "c")]
    assert [found.name for found in read(entries, AZURE_OPENAI_DEPLOYMENT="other")] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("api", "entry", "simple", "expected"),
    [
        ("images", None, "", None),  # the v1 route
        ("flux", None, "", "preview"),
        ("mai", None, "", None),  # its route has none
        ("operations", None, "", "2023-06-01-preview"),
        ("images", None, "2025-04-01-preview", "2025-04-01-preview"),
        # The simple version is that of the simple API: it says nothing of another.
        ("flux", None, "2025-04-01-preview", "preview"),
        ("operations", None, "preview", "2023-06-01-preview"),
        ("images", "latest", "preview", "latest"),
        ("operations", "2023-10-01-preview", "", "2023-10-01-preview"),
    ],
)
def test_every_api_has_its_own_default_version(api: str, entry: str | None, simple: str, expected: str | None) -> None:
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
        ("flux.2-PRO", "flux-2-pro"),  # Azure does not mind the case
        ("flux-pro-1.1", "flux-pro-1.1"),  # it is a path itself
        ("flux-kontext-pro", "flux-kontext-pro"),
        ("flux-2-pro", "flux-2-pro"),
        ("FLUX-2-FLEX", "flux-2-flex"),
    ],
)
def test_the_route_of_flux_follows_from_the_model(deployment: str, expected: str) -> None:
    [found] = read([{"name": "any", "api": "flux", "deployment": deployment}])
    [simple] = read(AZURE_OPENAI_API="flux", AZURE_OPENAI_DEPLOYMENT=deployment)
    assert found.model_path == simple.model_path == expected


def test_a_deployment_of_flux_with_a_name_of_its_own_says_its_route() -> None:
    [problem] = problems([{"name": "our-flux", "api": "flux"}])
    assert problem.startswith("IMAGE_DEPLOYMENTS.0.modelPath: ")
    [problem] = problems(AZURE_OPENAI_API="flux", AZURE_OPENAI_DEPLOYMENT="our-flux")
    assert problem.startswith("AZURE_OPENAI_DEPLOYMENT: ")  # a name that an operator can find in the settings
    [found] = read([{"name": "our-flux", "api": "flux", "modelPath": "flux-3"}])
    assert found.model_path == "flux-3"


def test_a_route_of_flux_is_nothing_to_another_api() -> None:
    [found] = read([{"name": "a", "api": "images", "modelPath": "flux-2-pro"}])
    assert found.model_path is None


WHOLE = {"name": "a", "api": "images"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("s3cret", "IMAGE_DEPLOYMENTS: invalid JSON"),
        ('[{"name": "s3cret", "api": "images"}', "IMAGE_DEPLOYMENTS: invalid JSON"),  # cut short by a shell's quotes
        ("[{'name': 's3cret'}]", "IMAGE_DEPLOYMENTS: invalid JSON"),  # Python's quotes
        ('"s3cret"', "IMAGE_DEPLOYMENTS: input should be a valid tuple"),
        ({"name": "s3cret", "api": "images"}, "IMAGE_DEPLOYMENTS: input should be a valid tuple"),  # no list around it
        ([], "IMAGE_DEPLOYMENTS: tuple should have at least 1 item"),
        (["s3cret"], "IMAGE_DEPLOYMENTS.0: "),
        ([{"api": "images"}], "IMAGE_DEPLOYMENTS.0.name: is missing"),
        ([{"name": "s3cret"}], "IMAGE_DEPLOYMENTS.0.api: is missing"),
        ([WHOLE | {"name": ""}], "IMAGE_DEPLOYMENTS.0.name: "),
        ([WHOLE | {"name": "s3cret" * 22}], "IMAGE_DEPLOYMENTS.0.name: "),  # longer than `model` of a request may be
        ([WHOLE | {"name": 5}], "IMAGE_DEPLOYMENTS.0.name: "),
        ([WHOLE | {"api": "s3cret"}], "IMAGE_DEPLOYMENTS.0.api: input should be 'operations', 'images', 'flux'"),
        ([WHOLE, WHOLE | {"name": "b", "endpoint": "s3cret"}], "IMAGE_DEPLOYMENTS.1.endpoint: is not an http"),
        ([WHOLE | {"endpoint": "http://s3cret.example.com"}], "IMAGE_DEPLOYMENTS.0.endpoint: must be https"),
        ([WHOLE | {"endpoint": "https://u:s3cret@a.example.com"}], "IMAGE_DEPLOYMENTS.0.endpoint: holds what"),
        ([WHOLE | {"deployment": ""}], "IMAGE_DEPLOYMENTS.0.deployment: "),
        ([WHOLE | {"apiVersion": "s3cret"}], "IMAGE_DEPLOYMENTS.0.apiVersion: "),
        ([WHOLE | {"apiVersion": "preview&s3cret"}], "IMAGE_DEPLOYMENTS.0.apiVersion: "),
        ([WHOLE | {"modelPath": "../s3cret"}], "IMAGE_DEPLOYMENTS.0.modelPath: "),
        ([WHOLE | {"modelPath": "flux?s3cret"}], "IMAGE_DEPLOYMENTS.0.modelPath: "),
        # A key has no place in here, and a typo must not make it be ignored.
        ([WHOLE | {"apiKey": "s3cret"}], "IMAGE_DEPLOYMENTS.0.apiKey: extra inputs are not permitted"),
        ([WHOLE | {"api_version": "s3cret"}], "IMAGE_DEPLOYMENTS.0.api_version: extra inputs"),
        ([WHOLE | {"apiKeySetting": "S3CRET"}], "IMAGE_DEPLOYMENTS.0.apiKeySetting: names a setting that is missing"),
        ([WHOLE, WHOLE], "IMAGE_DEPLOYMENTS.1.name: names a deployment that another entry names too"),
    ],
)
def test_what_is_wrong_in_the_list_is_named_by_its_place_and_not_shown(entries: Any, expected: str) -> None:
    problem, *others = problems(entries)
    assert problem.startswith(expected)
    assert all(other.startswith("IMAGE_DEPLOYMENTS: ") for other in others)  # pydantic counts only what is right
    assert "s3cret" not in " ".join([problem, *others]).lower()


def test_everything_that_is_wrong_in_the_list_is_said_at_once() -> None:
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


def test_an_endpoint_is_needed_once() -> None:
    entries = [WHOLE, {"name": "b", "api": "mai", "endpoint": "https://mai.example.com"}]
    assert problems(entries, AZURE_OPENAI_ENDPOINT="") == [
        "AZURE_OPENAI_ENDPOINT: is missing, and so is IMAGE_DEPLOYMENTS.0.endpoint"
    ]
    assert len(read(entries[1:], AZURE_OPENAI_ENDPOINT="")) == 1
    assert problems(AZURE_OPENAI_DEPLOYMENT="a", AZURE_OPENAI_ENDPOINT="") == ["AZURE_OPENAI_ENDPOINT: is missing"]


@pytest.mark.parametrize("api", ["images", "flux", "mai"])
def test_only_the_asynchronous_api_needs_no_deployment(api: str) -> None:
    [problem] = problems(AZURE_OPENAI_API=api)
    assert problem.startswith("AZURE_OPENAI_DEPLOYMENT: is missing")


def test_a_name_that_no_request_could_say_is_no_crash() -> None:
    [problem] = problems(AZURE_OPENAI_DEPLOYMENT="s" * 129)
    assert problem == "AZURE_OPENAI_DEPLOYMENT: has more than 128 characters"
    assert read(AZURE_OPENAI_DEPLOYMENT="s" * 128)[0].name == "s" * 128


def test_deployments_can_be_printed_without_a_key() -> None:
    found = read([WHOLE | {"apiKeySetting": "OTHER"}], OTHER="s3cret")
    assert "s3cret" not in repr(found)
