"""``GET /models``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from imagegen.app import build
from imagegen.settings import read_settings
from imagegen.web.http import Request
from imagegen.web.model_list import Model

STORAGE = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"


def test_list_has_limits_of_each_model_and_no_address() -> None:
    deployments = [
        {"name": "fine", "api": "images", "deployment": "s3cret-gpt-image-2"},
        {"name": "fast", "api": "images", "deployment": "gpt-image-1-mini"},
        {"name": "old", "api": "images", "deployment": "dall-e-3", "apiVersion": "2024-10-21"},
        {"name": "flux", "api": "flux", "deployment": "FLUX.2-pro", "endpoint": "https://s3cret.example.com"},
        {"name": "mai", "api": "mai", "apiKeySetting": "OTHER"},
        {"name": "operations", "api": "operations"},
    ]
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
    listed = json.loads(text)["value"]
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


def test_api_docs_name_each_field() -> None:
    section = Path("docs/api.md").read_text(encoding="utf-8").partition("\n## Models\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented == {field.alias for field in Model.model_fields.values()}
