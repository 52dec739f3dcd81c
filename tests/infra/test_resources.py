"""What is made fits the code: storage, lifecycle rules, the app, and what Flex Consumption accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from imagegen.settings import Settings
from tests.infra.bicep import ROOT, SUBSCRIPTION, Prediction

APP_SITE_CONFIG: Final = {"appSettings", "minTlsVersion"}
"""Everything in siteConfig. Flex refuses ftpsState, linuxFxVersion, use32BitWorkerProcess and others: what is not
here was not looked at, and does not belong there before it was."""

CANNOT_BE_TAGGED: Final = {
    "Microsoft.Authorization/roleAssignments",
    "Microsoft.CognitiveServices/accounts/deployments",
    "Microsoft.Consumption/budgets",
    "Microsoft.EventGrid/systemTopics/eventSubscriptions",
    "Microsoft.Insights/diagnosticSettings",
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups",
    "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Storage/storageAccounts/blobServices/containers",
    "Microsoft.Storage/storageAccounts/managementPolicies",
    "Microsoft.Storage/storageAccounts/queueServices",
    "Microsoft.Storage/storageAccounts/queueServices/queues",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
}

CONTAINERS: Final = "Microsoft.Storage/storageAccounts/blobServices/containers"


def source() -> str:
    """The code of the app."""
    files = [ROOT / "function_app.py", *(ROOT / "imagegen").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_everything_is_made_in_the_group_of_the_environment(prediction: Prediction) -> None:
    group = prediction.the("Microsoft.Resources/resourceGroups")
    assert group["name"] == prediction.parameters.get("resourceGroupName", "rg-demo")
    in_group = f"[resourceId('{SUBSCRIPTION}', '{group['name']}', "
    elsewhere = [
        resource["id"]
        for resource in prediction.resources
        # The name of a DNS zone of storage ends in what only the cloud knows: its id stays an expression.
        if resource is not group and not resource["id"].startswith((f"{group['id']}/", in_group))
    ]
    if "existingImageAccountName" in prediction.parameters:
        assert all(
            "/rg-theirs/providers/Microsoft.CognitiveServices/accounts/theirs/providers/" in name for name in elsewhere
        )
    else:
        assert elsewhere == []


def test_nothing_about_a_resource_stays_unknown(prediction: Prediction) -> None:
    # Otherwise the checks in these files would look at less than what a deployment makes.
    assert "unknown()" not in repr(prediction.resources)


def test_everything_is_tagged_with_the_environment(prediction: Prediction) -> None:
    for resource in prediction.resources:
        if resource["type"] in CANNOT_BE_TAGGED or "subnets" in resource["type"]:
            assert "tags" not in resource
        else:
            assert resource["tags"]["azd-env-name"] == "demo", resource["id"]
            assert prediction.parameters.get("extraTags", {}).items() <= resource["tags"].items()


def test_azd_finds_the_app_by_its_tag(prediction: Prediction) -> None:
    [service] = re.findall(r"^services:\n  (\w+):", (ROOT / "azure.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    assert prediction.app["tags"]["azd-service-name"] == service
    others = [resource for resource in prediction.resources if resource is not prediction.app]
    assert all("azd-service-name" not in resource.get("tags", {}) for resource in others)


def test_the_containers_that_the_code_names_are_made(prediction: Prediction) -> None:
    records = str(Settings.model_fields["generations_container"].default)
    images = str(Settings.model_fields["images_container"].default)
    assert prediction.names(CONTAINERS) == {records, images, "app-package"}
    assert (prediction.settings["GENERATIONS_CONTAINER"], prediction.settings["IMAGES_CONTAINER"]) == (records, images)


def test_the_app_runs_from_the_container_that_is_made_for_it(prediction: Prediction) -> None:
    deployment = prediction.app["properties"]["functionAppConfig"]["deployment"]["storage"]
    assert deployment["type"] == "blobContainer"
    assert "outputs.blobEndpoint.value, 'app-package')" in deployment["value"]
    assert deployment["authentication"]["type"] == "UserAssignedIdentity"
    identity = deployment["authentication"]["userAssignedIdentityResourceId"]
    assert list(prediction.app["identity"]["userAssignedIdentities"]) == [identity]
    assert prediction.the("Microsoft.ManagedIdentity/userAssignedIdentities")["id"] == identity


def test_finished_work_is_deleted_in_time_and_active_work_never(prediction: Prediction) -> None:
    days = prediction.parameters.get("retentionDays", 30)
    policy = prediction.the("Microsoft.Storage/storageAccounts/managementPolicies")["properties"]["policy"]
    deleted: dict[str, int] = {}
    for rule in policy["rules"]:
        definition = rule["definition"]
        assert rule["enabled"]
        assert definition["filters"]["blobTypes"] == ["blockBlob"]
        assert definition["actions"].keys() == {"baseBlob"}
        after = definition["actions"]["baseBlob"]["delete"]["daysAfterModificationGreaterThan"]
        deleted |= dict.fromkeys(definition["filters"]["prefixMatch"], after)
    assert deleted == {"images/": days, "generations/done/": days, "generations/keys/": max(days, 2)}
    assert prediction.settings["RETENTION_DAYS"] == str(days)


@pytest.mark.parametrize("prefix", ["active/", "done/"])
def test_the_prefixes_are_those_of_the_code(prefix: str) -> None:
    assert f'"{prefix}"' in source()


def test_the_plan_is_flex_consumption_and_has_one_app(prediction: Prediction) -> None:
    plan = prediction.the("Microsoft.Web/serverfarms")
    assert plan["sku"] == {"tier": "FlexConsumption", "name": "FC1"}
    assert plan["properties"] == {"reserved": True}
    assert prediction.app["properties"]["serverFarmId"] == plan["id"]
    assert prediction.app["kind"] == "functionapp,linux"


def test_the_app_has_nothing_that_flex_refuses(prediction: Prediction) -> None:
    types = {resource["type"] for resource in prediction.resources}
    assert not any(type_.startswith("Microsoft.Web/sites/slots") for type_ in types)
    assert set(prediction.app["properties"]["siteConfig"]) == APP_SITE_CONFIG
    logged = [resource["id"] for resource in prediction.of_type("Microsoft.Insights/diagnosticSettings")]
    assert logged
    assert not any("/Microsoft.Web/" in name for name in logged)


def test_the_app_runs_the_python_that_it_is_developed_with(prediction: Prediction) -> None:
    runtime = prediction.app["properties"]["functionAppConfig"]["runtime"]
    assert runtime == {"name": "python", "version": (ROOT / ".python-version").read_text(encoding="utf-8").strip()}


def test_cost_choices_arrive(prediction: Prediction) -> None:
    given = prediction.parameters
    always_ready = given.get("alwaysReadyHttpInstances", 0)
    assert prediction.app["properties"]["functionAppConfig"]["scaleAndConcurrency"] == {
        "instanceMemoryMB": given.get("instanceMemoryMB", 2048),
        "maximumInstanceCount": given.get("maximumInstanceCount", 40),
        "alwaysReady": [{"name": "http", "instanceCount": always_ready}] if always_ready else [],
        "triggers": {"http": {"perInstanceConcurrency": given.get("httpConcurrency", 16)}},
    }
    storage = prediction.the("Microsoft.Storage/storageAccounts")
    assert storage["sku"]["name"] == given.get("storageRedundancy", "Standard_LRS")
    blobs = prediction.the("Microsoft.Storage/storageAccounts/blobServices")["properties"]
    kept = {"enabled": True, "days": given.get("softDeleteDays", 7)}
    assert blobs["deleteRetentionPolicy"] == blobs["containerDeleteRetentionPolicy"] == kept
    logs = prediction.the("Microsoft.OperationalInsights/workspaces")["properties"]
    assert logs["retentionInDays"] == given.get("logRetentionDays", 30)
    assert logs["workspaceCapping"]["dailyQuotaGb"] == given.get("logDailyCapGb", 1)


def test_the_account_has_the_deployments_that_the_app_uses(predictions: Mapping[str, Prediction]) -> None:
    everything = predictions["everything"]
    given = everything.parameters
    [single, flux] = everything.of_type("Microsoft.CognitiveServices/accounts/deployments")
    assert single["name"].endswith(f"/{everything.settings['AZURE_OPENAI_DEPLOYMENT']}")
    assert single["sku"] == {"name": given["imageModelSku"], "capacity": given["imageModelCapacity"]}
    assert single["properties"]["model"] == {
        "format": "OpenAI",
        "name": given["imageModelName"],
        "version": given["imageModelVersion"],
    }
    assert flux["name"].endswith("/FLUX.2-pro")
    assert everything.the("Microsoft.CognitiveServices/accounts")["location"] == given["imageAccountLocation"]
    assert everything.the("Microsoft.CognitiveServices/accounts")["kind"] == given["imageAccountKind"]


def test_by_default_there_is_one_gpt_image_deployment_of_the_default_version(
    predictions: Mapping[str, Prediction],
) -> None:
    deployment = predictions["defaults"].the("Microsoft.CognitiveServices/accounts/deployments")
    model = deployment["properties"]["model"]
    assert model["name"].startswith("gpt-image-")
    assert model.get("version") is None
    assert deployment["sku"] == {"name": "GlobalStandard", "capacity": 1}


@pytest.mark.parametrize("name", ["existing account", "existing account, network"])
def test_an_existing_account_is_used_and_not_made(predictions: Mapping[str, Prediction], name: str) -> None:
    prediction = predictions[name]
    assert prediction.of_type("Microsoft.CognitiveServices/accounts") == []
    assert prediction.of_type("Microsoft.CognitiveServices/accounts/deployments") == []
    assert "imageAccess" in prediction.settings["AZURE_OPENAI_ENDPOINT"]
    assert prediction.outputs["IMAGE_ACCOUNT_NAME"] == "theirs"


def test_the_topic_takes_cloud_events(predictions: Mapping[str, Prediction]) -> None:
    for name, prediction in predictions.items():
        topics = prediction.of_type("Microsoft.EventGrid/topics")
        assert bool(topics) == ("EVENTGRID_TOPIC_ENDPOINT" in prediction.settings) == (name in ("topic", "everything"))
        assert all(topic["properties"]["inputSchema"] == "CloudEventSchemaV1_0" for topic in topics)


def test_a_finished_record_is_an_event_on_a_queue(predictions: Mapping[str, Prediction]) -> None:
    prediction = predictions["blob events"]
    topic = prediction.the("Microsoft.EventGrid/systemTopics")
    storage = prediction.the("Microsoft.Storage/storageAccounts")
    assert topic["properties"]["source"] == storage["id"]
    subscription = prediction.the("Microsoft.EventGrid/systemTopics/eventSubscriptions")["properties"]
    assert subscription["filter"] == {
        "includedEventTypes": ["Microsoft.Storage.BlobCreated"],
        "subjectBeginsWith": "/blobServices/default/containers/generations/blobs/done/",
    }
    delivery = subscription["deliveryWithResourceIdentity"]
    queues = prediction.names("Microsoft.Storage/storageAccounts/queueServices/queues")
    assert delivery["destination"]["properties"]["queueName"] in queues
    assert delivery["destination"]["properties"]["resourceId"] == storage["id"]
    # Shared keys are off: without an identity Event Grid could not write.
    assert delivery["identity"]["type"] == topic["identity"]["type"] == "SystemAssigned"


def test_a_budget_is_made_unless_it_is_nothing(predictions: Mapping[str, Prediction]) -> None:
    assert predictions["no budget"].of_type("Microsoft.Consumption/budgets") == []
    budget = predictions["everything"].the("Microsoft.Consumption/budgets")["properties"]
    assert (budget["amount"], budget["timePeriod"]["startDate"]) == (500, "2026-11-01")
    for warning in budget["notifications"].values():
        assert warning["contactEmails"] == ["first@example.com", "second@example.com"]
    by_default = predictions["defaults"].the("Microsoft.Consumption/budgets")["properties"]["notifications"]
    assert all(warning["enabled"] and warning["contactRoles"] == ["Owner"] for warning in by_default.values())


def test_outputs_tell_the_next_person_where_things_are(predictions: Mapping[str, Prediction]) -> None:
    outputs: dict[str, Any] = predictions["defaults"].outputs
    assert "'https://{0}/api'" in outputs["BASE_URL"]
    assert outputs["GENERATIONS_CONTAINER_URL"].endswith("'generations')]")
    assert outputs["IMAGES_CONTAINER_URL"].endswith("'images')]")
    assert "az functionapp keys list" in outputs["FUNCTION_KEY_COMMAND"]
    everything = predictions["everything"]
    assert everything.outputs["BASE_URL"] == "https://images.example.com/api"
    assert everything.outputs["KEY_VAULT_NAME"] == everything.the("Microsoft.KeyVault/vaults")["name"]
    assert "outputs.endpoint.value" in everything.outputs["EVENT_GRID_TOPIC_ENDPOINT"]
