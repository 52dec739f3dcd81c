"""The deployed resources fit the code of the app, and Flex Consumption."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagegen.settings import Settings
from tests.infra.bicep import INFRA, ROOT, SUBSCRIPTION, Prediction
from tests.infra.rules import every_deployment, given, has, rule_for

APP_SITE_CONFIG: Final = {"appSettings", "minTlsVersion"}
"""All properties of siteConfig. Flex Consumption refuses ftpsState, linuxFxVersion, use32BitWorkerProcess and others:
before you add a property here, check that Flex Consumption accepts it."""

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

ACCOUNTS: Final = "Microsoft.CognitiveServices/accounts"
MODELS: Final = "Microsoft.CognitiveServices/accounts/deployments"
STORAGE: Final = "Microsoft.Storage/storageAccounts"
QUEUES: Final = "Microsoft.Storage/storageAccounts/queueServices/queues"
BUDGETS: Final = "Microsoft.Consumption/budgets"
CONTAINERS: Final = "Microsoft.Storage/storageAccounts/blobServices/containers"


@rule_for(every_deployment)
def test_resource_group_has_the_name_of_the_environment(prediction: Prediction) -> None:
    group = prediction.the("Microsoft.Resources/resourceGroups")
    assert group["name"] == prediction.parameters.get("resourceGroupName", "rg-demo")


@rule_for(has(ACCOUNTS))
def test_all_resources_are_in_the_resource_group(prediction: Prediction) -> None:
    assert _outside_group(prediction) == []


@rule_for(given("existingImageAccountName"))
def test_only_roles_on_an_existing_account_are_outside_the_group(prediction: Prediction) -> None:
    roles = "/rg-theirs/providers/Microsoft.CognitiveServices/accounts/theirs/providers/Microsoft.Authorization/"
    outside = _outside_group(prediction)
    assert outside
    assert [name for name in outside if roles not in name] == []


@rule_for(every_deployment)
def test_no_property_is_unknown(prediction: Prediction) -> None:
    # The rules in this folder cannot check a property that the prediction does not know.
    assert "unknown()" not in repr(prediction.resources)


@rule_for(every_deployment)
def test_every_resource_has_the_tag_of_the_environment(prediction: Prediction) -> None:
    for resource in prediction.resources:
        if resource["type"] in CANNOT_BE_TAGGED or "subnets" in resource["type"]:
            assert "tags" not in resource
        else:
            assert resource["tags"]["azd-env-name"] == "demo", resource["id"]
            assert prediction.parameters.get("extraTags", {}).items() <= resource["tags"].items()


@rule_for(every_deployment)
def test_only_the_app_has_the_service_tag_of_azure_yaml(prediction: Prediction) -> None:
    [service] = re.findall(r"^services:\n  (\w+):", (ROOT / "azure.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    assert prediction.app["tags"]["azd-service-name"] == service
    others = [resource for resource in prediction.resources if resource is not prediction.app]
    assert all("azd-service-name" not in resource.get("tags", {}) for resource in others)


@rule_for(every_deployment)
def test_containers_are_those_of_the_settings(prediction: Prediction) -> None:
    records = str(Settings.model_fields["generations_container"].default)
    images = str(Settings.model_fields["images_container"].default)
    assert prediction.names(CONTAINERS) == {records, images, "app-package"}
    assert (prediction.settings["GENERATIONS_CONTAINER"], prediction.settings["IMAGES_CONTAINER"]) == (records, images)


@rule_for(every_deployment)
def test_app_runs_from_the_package_container(prediction: Prediction) -> None:
    deployment = prediction.app["properties"]["functionAppConfig"]["deployment"]["storage"]
    assert deployment["type"] == "blobContainer"
    assert "outputs.blobEndpoint.value, 'app-package')" in deployment["value"]
    assert deployment["authentication"]["type"] == "UserAssignedIdentity"
    identity = deployment["authentication"]["userAssignedIdentityResourceId"]
    assert list(prediction.app["identity"]["userAssignedIdentities"]) == [identity]
    assert prediction.the("Microsoft.ManagedIdentity/userAssignedIdentities")["id"] == identity


@rule_for(every_deployment)
def test_lifecycle_rules_delete_finished_work_only(prediction: Prediction) -> None:
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


def test_prefixes_of_the_lifecycle_rules_are_those_of_the_code() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "imagegen").rglob("*.py"))
    bicep = (INFRA / "modules" / "storage.bicep").read_text(encoding="utf-8")
    prefixes = re.findall(r"\$\{containerNames\.generations\}/(\w+/)", bicep)
    assert prefixes == ["done/", "keys/"]
    assert [prefix for prefix in [*prefixes, "active/"] if not re.search(rf'["\']{prefix}', code)] == []


@rule_for(every_deployment)
def test_plan_is_flex_consumption_with_one_app(prediction: Prediction) -> None:
    plan = prediction.the("Microsoft.Web/serverfarms")
    assert plan["sku"] == {"tier": "FlexConsumption", "name": "FC1"}
    assert plan["properties"] == {"reserved": True}
    assert prediction.app["properties"]["serverFarmId"] == plan["id"]
    assert prediction.app["kind"] == "functionapp,linux"


@rule_for(every_deployment)
def test_app_uses_only_what_flex_consumption_accepts(prediction: Prediction) -> None:
    types = {resource["type"] for resource in prediction.resources}
    assert not any(type_.startswith("Microsoft.Web/sites/slots") for type_ in types)
    assert set(prediction.app["properties"]["siteConfig"]) == APP_SITE_CONFIG
    logged = [resource["id"] for resource in prediction.of_type("Microsoft.Insights/diagnosticSettings")]
    assert logged
    assert not any("/Microsoft.Web/" in name for name in logged)


@rule_for(every_deployment)
def test_app_runs_the_python_of_python_version(prediction: Prediction) -> None:
    runtime = prediction.app["properties"]["functionAppConfig"]["runtime"]
    assert runtime == {"name": "python", "version": (ROOT / ".python-version").read_text(encoding="utf-8").strip()}


@rule_for(every_deployment)
def test_update_strategy_is_the_parameter(prediction: Prediction) -> None:
    # ARM ignores a property in another place without an error.
    strategy = prediction.app["properties"]["functionAppConfig"]["siteUpdateStrategy"]
    assert strategy == {"type": prediction.parameters.get("updateStrategy", "Recreate")}


@rule_for(every_deployment)
def test_cost_parameters_are_applied(prediction: Prediction) -> None:
    parameters = prediction.parameters
    always_ready = parameters.get("alwaysReadyHttpInstances", 0)
    assert prediction.app["properties"]["functionAppConfig"]["scaleAndConcurrency"] == {
        "instanceMemoryMB": parameters.get("instanceMemoryMB", 2048),
        "maximumInstanceCount": parameters.get("maximumInstanceCount", 40),
        "alwaysReady": [{"name": "http", "instanceCount": always_ready}] if always_ready else [],
        "triggers": {"http": {"perInstanceConcurrency": parameters.get("httpConcurrency", 16)}},
    }
    storage = prediction.the(STORAGE)
    assert storage["sku"]["name"] == parameters.get("storageRedundancy", "Standard_LRS")
    blobs = prediction.the("Microsoft.Storage/storageAccounts/blobServices")["properties"]
    kept = {"enabled": True, "days": parameters.get("softDeleteDays", 7)}
    assert blobs["deleteRetentionPolicy"] == blobs["containerDeleteRetentionPolicy"] == kept
    logs = prediction.the("Microsoft.OperationalInsights/workspaces")["properties"]
    assert logs["retentionInDays"] == parameters.get("logRetentionDays", 30)
    assert logs["workspaceCapping"]["dailyQuotaGb"] == parameters.get("logDailyCapGb", 1)


def test_account_has_the_deployments_of_the_parameters(predictions: Mapping[str, Prediction]) -> None:
    everything = predictions["everything"]
    parameters = everything.parameters
    [single, flux] = everything.of_type(MODELS)
    assert single["name"].endswith(f"/{everything.settings['AZURE_OPENAI_DEPLOYMENT']}")
    assert single["sku"] == {"name": parameters["imageModelSku"], "capacity": parameters["imageModelCapacity"]}
    assert single["properties"]["model"] == {
        "format": "OpenAI",
        "name": parameters["imageModelName"],
        "version": parameters["imageModelVersion"],
    }
    assert flux["name"].endswith("/FLUX.2-pro")
    account = everything.the(ACCOUNTS)
    assert account["location"] == parameters["imageAccountLocation"]
    assert account["kind"] == parameters["imageAccountKind"]


def test_default_is_one_gpt_image_deployment(predictions: Mapping[str, Prediction]) -> None:
    deployment = predictions["defaults"].the(MODELS)
    model = deployment["properties"]["model"]
    assert model["name"].startswith("gpt-image-")
    assert model.get("version") is None
    assert deployment["sku"] == {"name": "GlobalStandard", "capacity": 1}


@rule_for(given("existingImageAccountName"))
def test_existing_account_is_used_and_not_created(prediction: Prediction) -> None:
    assert prediction.of_type(ACCOUNTS) == []
    assert prediction.of_type(MODELS) == []
    assert "imageAccess" in prediction.settings["AZURE_OPENAI_ENDPOINT"]
    assert prediction.outputs["IMAGE_ACCOUNT_NAME"] == "theirs"


@rule_for(every_deployment)
def test_topic_exists_if_its_switch_is_on(prediction: Prediction) -> None:
    wanted = given("eventGridTopic")(prediction)
    assert has("Microsoft.EventGrid/topics")(prediction) is wanted
    assert ("EVENTGRID_TOPIC_ENDPOINT" in prediction.settings) is wanted


@rule_for(given("eventGridTopic"))
def test_topic_accepts_cloud_events(prediction: Prediction) -> None:
    assert prediction.the("Microsoft.EventGrid/topics")["properties"]["inputSchema"] == "CloudEventSchemaV1_0"


@rule_for(given("blobCreatedEvents"))
def test_finished_record_becomes_a_queue_message(prediction: Prediction) -> None:
    topic = prediction.the("Microsoft.EventGrid/systemTopics")
    storage = prediction.the(STORAGE)
    assert topic["properties"]["source"] == storage["id"]
    subscription = prediction.the("Microsoft.EventGrid/systemTopics/eventSubscriptions")["properties"]
    assert subscription["filter"] == {
        "includedEventTypes": ["Microsoft.Storage.BlobCreated"],
        "subjectBeginsWith": "/blobServices/default/containers/generations/blobs/done/",
        # Without it, a deletion would look like a second completion.
        "advancedFilters": [
            {"operatorType": "StringIn", "key": "data.contentType", "values": ["application/json"]},
        ],
    }
    delivery = subscription["deliveryWithResourceIdentity"]
    assert delivery["destination"]["properties"]["queueName"] in prediction.names(QUEUES)
    assert delivery["destination"]["properties"]["resourceId"] == storage["id"]
    # Shared keys are off: Event Grid can write only with an identity.
    assert delivery["identity"]["type"] == topic["identity"]["type"] == "SystemAssigned"


@rule_for(every_deployment)
def test_budget_exists_unless_it_is_zero(prediction: Prediction) -> None:
    amounts = [budget["properties"]["amount"] for budget in prediction.of_type(BUDGETS)]
    wanted = prediction.parameters.get("monthlyBudget", 50)
    assert amounts == ([wanted] if wanted else [])


def test_budget_warns_owners_and_the_given_addresses(predictions: Mapping[str, Prediction]) -> None:
    budget = predictions["everything"].the(BUDGETS)["properties"]
    assert budget["timePeriod"]["startDate"] == "2026-11-01"
    for warning in budget["notifications"].values():
        assert warning["contactEmails"] == ["first@example.com", "second@example.com"]
    by_default = predictions["defaults"].the(BUDGETS)["properties"]["notifications"]
    assert by_default
    assert all(warning["enabled"] and warning["contactRoles"] == ["Owner"] for warning in by_default.values())


def test_outputs_name_the_addresses_of_the_deployment(predictions: Mapping[str, Prediction]) -> None:
    outputs: dict[str, Any] = predictions["defaults"].outputs
    assert "'https://{0}/api'" in outputs["BASE_URL"]
    assert outputs["GENERATIONS_CONTAINER_URL"].endswith("'generations')]")
    assert outputs["IMAGES_CONTAINER_URL"].endswith("'images')]")
    assert "az functionapp keys list" in outputs["FUNCTION_KEY_COMMAND"]
    everything = predictions["everything"]
    assert everything.outputs["BASE_URL"] == "https://images.example.com/api"
    assert everything.outputs["KEY_VAULT_NAME"] == everything.the("Microsoft.KeyVault/vaults")["name"]
    assert "outputs.endpoint.value" in everything.outputs["EVENT_GRID_TOPIC_ENDPOINT"]


def _outside_group(prediction: Prediction) -> list[str]:
    """Ids of the resources outside the resource group of the deployment."""
    group = prediction.the("Microsoft.Resources/resourceGroups")
    # The suffix of the DNS zones of storage depends on the cloud: the id of such a zone stays an expression.
    inside = (f"{group['id']}/", f"[resourceId('{SUBSCRIPTION}', '{group['name']}', ")
    return [
        resource["id"]
        for resource in prediction.resources
        if resource is not group and not resource["id"].startswith(inside)
    ]
