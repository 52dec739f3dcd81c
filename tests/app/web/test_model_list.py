"""``GET /models``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from imagegen.app import build
from imagegen.settings import SettingsError, read_settings
from imagegen.web.http import Request
from imagegen.web.model_list import Model

STORAGE = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"


def model_list(deployments: list[dict[str, str]]) -> str:
    """The answer of an app with these deployments."""
    settings = read_settings(
        {
            "AzureWebJobsStorage": STORAGE,
            "AZURE_OPENAI_ENDPOINT": "https://s3cret.example.com",
            "AZURE_OPENAI_API_KEY": "s3cret",
            "OTHER": "s3cret",
            "POLL_SCHEDULE": "0 * * * * *",
            "IMAGE_DEPLOYMENTS": json.dumps(deployments),
        }
    )
    response = build(settings).models.get(Request("GET", "http://localhost/api/models", {}, {}, {}, b""))
    text = response.content().decode()
    assert "s3cret" not in text
    return text


def test_list_has_limits_of_each_model_and_no_address() -> None:
    deployments = [
        {"name": "fine", "api": "images", "deployment": "s3cret-gpt-image-2"},
        {"name": "fast", "api": "images", "deployment": "gpt-image-1-mini"},
        {"name": "old", "api": "images", "deployment": "dall-e-3", "apiVersion": "2024-10-21"},
        {"name": "flux", "api": "flux", "deployment": "FLUX.2-pro", "endpoint": "https://s3cret.example.com"},
        {"name": "mai", "api": "mai", "apiKeySetting": "OTHER"},
        {"name": "operations", "api": "operations"},
    ]
    listed = json.loads(model_list(deployments))["value"]
    assert listed[0] == {
        "name": "fine",
        "api": "images",
        "isDefault": True,
        "sizes": ["auto", "1024x1024", "1024x1536", "1536x1024"],
        "sizeRule": "auto, 1024x1024, 1024x1536, 1536x1024, or WIDTHxHEIGHT with each side 16 to 3,840 pixels, a "
        "multiple of 16, the long side at most 3 times the short one, 655,360 to 8,294,400 pixels in all",
        "anySizeTo": 3840,
        "mostImages": 10,
        "longestPrompt": 32_000,
        "fields": ["quality", "output_format", "output_compression", "background", "user"],
    }
    assert [(one["name"], one["api"], one["isDefault"], one["mostImages"], len(one["sizes"])) for one in listed] == [
        ("fine", "images", True, 10, 4),
        ("fast", "images", False, 10, 4),
        ("old", "images", False, 1, 3),
        ("flux", "flux", False, 4, 1),
        ("mai", "mai", False, 1, 1),
        ("operations", "operations", False, 5, 3),
    ]
    assert [one["anySizeTo"] for one in listed] == [3840, None, None, 2048, 1365, None]
    assert listed[-1]["sizeRule"] == "256x256, 512x512, 1024x1024"


def pool(*deployments: str, api: str = "images", name: str = "pool") -> list[dict[str, str]]:
    """A pool of these deployments, each on a host of its own."""
    hosts = [f"https://s3cret-{number}.example.com" for number in range(len(deployments))]
    return [
        {"name": name, "api": api, "deployment": deployment, "endpoint": host}
        for deployment, host in zip(deployments, hosts, strict=True)
    ]


def test_pool_is_listed_once() -> None:
    three = pool(*["gpt-image-2"] * 3)
    other = {"name": "other", "api": "mai"}
    for deployments, names in (
        ([*three, other], [("pool", True), ("other", False)]),
        ([other, *three], [("other", True), ("pool", False)]),
        ([three[0], other, *three[1:]], [("pool", True), ("other", False)]),
    ):
        listed = json.loads(model_list(deployments))["value"]
        assert [(one["name"], one["isDefault"]) for one in listed] == names


@pytest.mark.parametrize(
    ("deployments", "api"),
    [
        (("gpt-image-1.5", "gpt-image-2"), "images"),
        (("gpt-image-2", "gpt-image-1.5"), "images"),
        (("gpt-image-1.5", "pictures"), "images"),  # by its name, it may be any later model
        (("MAI-Image-2.5", "MAI-Image-2.6"), "mai"),
    ],
)
def test_pool_of_models_with_different_limits_is_refused(deployments: tuple[str, ...], api: str) -> None:
    with pytest.raises(SettingsError) as caught:
        model_list(pool(*deployments, api=api))
    assert str(caught.value) == (
        "Invalid settings:\n  IMAGE_DEPLOYMENTS.1.deployment: accepts other requests than another entry with the same "
        "name, by its name and API version. Entries with one name are a pool of one model. Use a deployment of that "
        'model, which is named after it, or change the name of the entry. Example: "deployment": "gpt-image-2"'
    )


def test_pool_of_a_dated_version_and_a_newer_route_is_one_model() -> None:
    deployments = pool("gpt-image-1.5", "gpt-image-1-mini", "GPT-IMAGE-1.5")
    deployments[1]["apiVersion"] = "2025-04-01-preview"
    assert len(json.loads(model_list(deployments))["value"]) == 1


def test_api_docs_name_each_field() -> None:
    section = Path("docs/api.md").read_text(encoding="utf-8").partition("\n## Models\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == {field.alias for field in Model.model_fields.values()}
