"""The api-versions that the app sends, and those that the emulator accepts."""

from __future__ import annotations

import json

import pytest

from imagegen.deployments import ImageApi
from imagegen.settings import read_settings
from local.emulator import api_versions
from local.stack import EVERY_MODEL
from tests.app.test_settings import NEEDED

ACCEPTED = {
    ImageApi.OPERATIONS: api_versions.OPERATIONS,
    ImageApi.IMAGES: api_versions.V1 | api_versions.DALLE | api_versions.GPT_IMAGE,
    ImageApi.FLUX: api_versions.FLUX,
    ImageApi.MAI: api_versions.MAI,
}


@pytest.mark.parametrize("api", list(ImageApi))
def test_default_version_of_the_app_is_accepted(api: ImageApi) -> None:
    settings = read_settings(NEEDED | {"AZURE_OPENAI_API": api.value, "AZURE_OPENAI_DEPLOYMENT": "FLUX.2-pro"})
    assert settings.deployments[0].api_version in ACCEPTED[api]


def test_versions_of_the_local_models_are_accepted() -> None:
    deployments = read_settings(NEEDED | {"IMAGE_DEPLOYMENTS": EVERY_MODEL}).deployments
    assert len(deployments) == len(json.loads(EVERY_MODEL))
    assert [one.name for one in deployments if one.api_version not in ACCEPTED[one.api]] == []
