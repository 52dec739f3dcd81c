"""The deployed resources fit the code of the app, and Flex Consumption."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagegen.settings import Settings
from tests.infra.bicep import INFRA, REGION, ROOT, SUBSCRIPTION, Prediction, Resource, scope_of
from tests.infra.bicep_source import parameters
from tests.infra.rules import every_deployment, given, has, pool_regions, rule_for

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


def makes_its_account(prediction: Prediction) -> bool:
    return not prediction.parameters.get("existingImageAccountName")


@rule_for(makes_its_account)
def test_all_resources_are_in_the_resource_group(prediction: Prediction) -> None:
    assert _outside_group(prediction) == []


@rule_for(given("existingImageAccountName"))
def test_only_roles_on_an_existing_account_are_outside_the_group(prediction: Prediction) -> None:
    outside = _outside_group(prediction)
    assert outside
    assert {resource["type"] for resource in outside} == {"Microsoft.Authorization/roleAssignments"}
    account = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-theirs/providers/{ACCOUNTS}/theirs"
    assert {scope_of(resource) for resource in outside} == {account}


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
    always_ready = {
        "http": parameters.get("alwaysReadyHttpInstances", 0),
        "function:advance_generations": parameters.get("alwaysReadyQueueInstances", 0),
    }
    assert prediction.app["properties"]["functionAppConfig"]["scaleAndConcurrency"] == {
        "instanceMemoryMB": parameters.get("instanceMemoryMB", 2048),
        "maximumInstanceCount": parameters.get("maximumInstanceCount", 40),
        "alwaysReady": [{"name": name, "instanceCount": count} for name, count in always_ready.items() if count],
        "triggers": {"http": {"perInstanceConcurrency": parameters.get("httpConcurrency", 16)}},
    }
    storage = prediction.the(STORAGE)
    assert storage["sku"]["name"] == parameters.get("storageRedundancy", "Standard_LRS")
    blobs = prediction.the("Microsoft.Storage/storageAccounts/blobServices")["properties"]
    # A soft-deleted version of a blob slows down every listing of its prefix: blobs only on request.
    days = parameters.get("blobSoftDeleteDays", 0)
    assert blobs["deleteRetentionPolicy"] == ({"enabled": True, "days": days} if days else {"enabled": False})
    assert blobs["containerDeleteRetentionPolicy"] == {"enabled": True, "days": 7}
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


def test_default_is_one_gpt_image_deployment(predictions: Mapping[str, Prediction]) -> None:
    deployment = predictions["defaults"].the(MODELS)
    assert deployment["properties"]["model"] == {"format": "OpenAI", "name": "gpt-image-2", "version": None}
    assert deployment["sku"] == {"name": "GlobalStandard", "capacity": 2}
    account = predictions["defaults"].the(ACCOUNTS)
    assert account["kind"] == "AIServices"
    # The name of the quota that azd looks for in each region is that of the default deployment.
    assert "usageName: ['OpenAI.GlobalStandard.gpt-image-2,2']" in parameters()["location"].decorators


def test_models_are_deployed_one_after_the_other(template: dict[str, Any]) -> None:
    # The service refuses a second deployment while it creates the first.
    account = template["resources"]["imageAccount"]["properties"]["template"]["resources"]
    assert account["account::models"]["copy"]["mode"] == "serial"
    assert account["account::models"]["copy"]["batchSize"] == 1


def test_image_account_in_another_region_has_another_name(predictions: Mapping[str, Prediction]) -> None:
    # An account cannot move: with the same name, "choose another region and run again" would fail.
    first, second = (predictions[name].the(ACCOUNTS) for name in ("defaults", "second account"))
    assert second["location"] == "westus3"
    assert first["name"] != second["name"]
    assert first["properties"]["customSubDomainName"] == first["name"]


def test_regions_have_flex_consumption_and_image_models() -> None:
    # Model matrix of July 2026, and the regions that the Flex Consumption quickstarts of Microsoft allow.
    gpt_image = {"eastus2", "polandcentral", "swedencentral", "uaenorth", "westus3"}
    without_flex = {"polandcentral"}
    assert allowed("location") == gpt_image - without_flex
    assert allowed("imageAccountLocation") == gpt_image | {""}
    docs = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert [region for region in gpt_image if f"`{region}`" not in docs] == []


@rule_for(given("imagePoolLocations"))
def test_each_region_of_a_pool_has_an_account_with_the_same_deployment(prediction: Prediction) -> None:
    accounts = prediction.of_type(ACCOUNTS)
    first = {REGION} if makes_its_account(prediction) else set[str]()
    assert {account["location"] for account in accounts} == first | pool_regions(prediction)
    assert len({account["name"] for account in accounts}) == len(accounts) == len(first | pool_regions(prediction))
    name = prediction.settings["AZURE_OPENAI_DEPLOYMENT"]
    models = [model for model in prediction.of_type(MODELS) if model["name"].endswith(f"/{name}")]
    assert {model["name"].partition("/")[0] for model in models} == {account["name"] for account in accounts}
    assert all(model["sku"] == models[0]["sku"] for model in models)
    assert all(model["properties"] == models[0]["properties"] for model in models)


def test_regions_of_a_pool_are_those_of_the_first_account() -> None:
    types = re.findall(r"'(\w+)'", parameters()["imagePoolLocations"].type)
    assert {*types, ""} == allowed("imageAccountLocation")


@rule_for(has(ACCOUNTS))
def test_image_account_has_the_only_paid_tier(prediction: Prediction) -> None:
    assert [account["sku"] for account in prediction.of_type(ACCOUNTS) if account["sku"] != {"name": "S0"}] == []


@rule_for(given("existingImageAccountName"))
def test_existing_account_is_used_and_not_created(prediction: Prediction) -> None:
    assert len(prediction.of_type(ACCOUNTS)) == len(prediction.of_type(MODELS)) == len(pool_regions(prediction))
    assert "imageAccess" in prediction.settings["AZURE_OPENAI_ENDPOINT"]
    assert prediction.outputs["IMAGE_ACCOUNT_NAME"] == "theirs"


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
def test_budget_exists_if_an_amount_is_given(prediction: Prediction) -> None:
    budgets = [budget["properties"] for budget in prediction.of_type(BUDGETS)]
    wanted = prediction.parameters.get("monthlyBudget", 0)
    assert [budget["amount"] for budget in budgets] == ([wanted] if wanted else [])
    for budget in budgets:
        # Azure accepts only the first day of a month, and refuses to change it later.
        start = budget["timePeriod"]["startDate"]
        assert prediction.outputs["BUDGET_START_DATE"] == start
        if month := prediction.parameters.get("budgetStartDate"):
            assert start == f"{month[:7]}-01"
        else:
            assert start == "[format('{0}-01', take(utcNow('yyyy-MM-01'), 7))]"
        for warning in budget["notifications"].values():
            assert warning["enabled"]
            assert warning["contactRoles"] == ["Owner"]
            emails = prediction.parameters.get("alertEmails", "")
            assert warning["contactEmails"] == [mail.strip() for mail in emails.split(",") if mail]


def test_outputs_name_the_addresses_of_the_deployment(predictions: Mapping[str, Prediction]) -> None:
    outputs: dict[str, Any] = predictions["defaults"].outputs
    assert "'https://{0}/api'" in outputs["BASE_URL"]
    assert outputs["GENERATIONS_CONTAINER_URL"].endswith("'generations')]")
    assert outputs["IMAGES_CONTAINER_URL"].endswith("'images')]")
    assert "az functionapp keys list" in outputs["FUNCTION_KEY_COMMAND"]
    everything = predictions["everything"]
    assert everything.outputs["BASE_URL"] == "https://images.example.com/api"
    assert everything.outputs["KEY_VAULT_NAME"] == everything.the("Microsoft.KeyVault/vaults")["name"]
    assert predictions["defaults"].outputs["BUDGET_START_DATE"] == ""


def allowed(parameter: str) -> set[str]:
    """The values of ``@allowed``."""
    values = parameters()[parameter].decorators.partition("@allowed([")[2].partition("])")[0]
    return set(re.findall(r"'(\w*)'", values))


def _outside_group(prediction: Prediction) -> list[Resource]:
    """The resources outside the resource group of the deployment."""
    group = prediction.the("Microsoft.Resources/resourceGroups")
    # The suffix of the DNS zones of storage depends on the cloud: the id of such a zone stays an expression.
    inside = (f"{group['id']}/", f"[resourceId('{SUBSCRIPTION}', '{group['name']}', ")
    return [
        resource
        for resource in prediction.resources
        if resource is not group and not scope_of(resource).startswith(inside)
    ]


@rule_for(every_deployment)
def test_telemetry_is_switched_in_host_and_worker(prediction: Prediction) -> None:
    settings = prediction.settings
    on = prediction.parameters.get("openTelemetry", False)
    assert settings["PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY"] == str(on).lower()
    assert settings["AzureFunctionsJobHost__telemetryMode"] == ("OpenTelemetry" if on else "ApplicationInsights")
    assert {"requests", "urllib3", "azure_sdk"} <= {*settings["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"].split(",")}
