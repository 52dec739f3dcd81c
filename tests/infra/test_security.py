"""Who may do what, from where; and that no key exists that could leak."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final

import pytest

from tests.infra.bicep import INFRA, PERSON, Prediction, Resource, strings

ROLES: Final = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": "Storage Queue Data Message Sender",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "a97b65f3-24c7-4388-baec-2e87135dc908": "Cognitive Services User",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "d5a91429-5739-47e2-a06b-3470a27159e7": "EventGrid Data Sender",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
}

CLOSABLE: Final = {
    "Microsoft.Storage/storageAccounts": {"blob", "queue"},
    "Microsoft.CognitiveServices/accounts": {"account"},
    "Microsoft.KeyVault/vaults": {"vault"},
    "Microsoft.EventGrid/topics": {"topic"},
}
"""What the network closes, and the private endpoints that it needs."""

ZONES: Final = {
    "blob": {"privatelink.blob.{0}"},
    "queue": {"privatelink.queue.{0}"},
    "account": {
        "privatelink.cognitiveservices.azure.com",
        "privatelink.openai.azure.com",
        "privatelink.services.ai.azure.com",
    },
    "vault": {"privatelink.vaultcore.azure.net"},
    "topic": {"privatelink.eventgrid.azure.net"},
    "sites": {"privatelink.azurewebsites.net"},
}

type Assignment = tuple[str, str, str]
"""Who, which role, on which type of resource."""


def granted(prediction: Prediction) -> list[Assignment]:
    """Every role assignment that is made."""
    return [_assignment(resource) for resource in prediction.of_type("Microsoft.Authorization/roleAssignments")]


def needed(prediction: Prediction) -> set[Assignment]:
    """Every role assignment that the parameters call for, at the smallest scope that works."""
    given = prediction.parameters
    storage, images = "Microsoft.Storage/storageAccounts", "Microsoft.CognitiveServices/accounts"
    roles: set[Assignment] = {
        # The account, not a container: the host makes containers of its own; user delegation keys are the account's.
        ("app", "Storage Blob Data Owner", storage),
        ("app", "Storage Queue Data Contributor", storage),
        ("app", "Monitoring Metrics Publisher", "Microsoft.Insights/components"),
        ("app", "Cognitive Services OpenAI User", images),
    }
    if given.get("grantCognitiveServicesUser") or given.get("imageApi") in ("flux", "mai"):
        roles.add(("app", "Cognitive Services User", images))
    if given.get("eventGridTopic"):
        roles.add(("app", "EventGrid Data Sender", "Microsoft.EventGrid/topics"))
    if given.get("blobCreatedEvents"):
        queue = "Microsoft.Storage/storageAccounts/queueServices/queues"
        roles.add(("topic", "Storage Queue Data Message Sender", queue))
    vault = {"keyVault", "compatApiKeysInKeyVault", "webhookSecretInKeyVault"} & set(given)
    if vault:
        roles.add(("app", "Key Vault Secrets User", "Microsoft.KeyVault/vaults"))
    if "principalId" in given:
        roles |= {
            ("person", "Storage Blob Data Contributor", storage),
            ("person", "Storage Queue Data Contributor", storage),
            ("person", "Cognitive Services OpenAI User", images),
        }
        if vault:
            roles.add(("person", "Key Vault Secrets Officer", "Microsoft.KeyVault/vaults"))
    return roles


def test_every_needed_role_is_granted_and_no_other(prediction: Prediction) -> None:
    assignments = granted(prediction)
    assert set(assignments) == needed(prediction)
    assert len(assignments) == len(set(assignments))


def test_roles_are_assigned_on_single_resources_of_this_deployment(prediction: Prediction) -> None:
    for assignment in prediction.of_type("Microsoft.Authorization/roleAssignments"):
        scope = assignment["id"].partition("/providers/Microsoft.Authorization/")[0]
        theirs = prediction.parameters.get("existingImageAccountName")
        known = {resource["id"] for resource in prediction.resources}
        assert scope in known or (theirs and scope.endswith(f"/Microsoft.CognitiveServices/accounts/{theirs}")), scope


def test_a_person_s_roles_name_what_they_are(predictions: Mapping[str, Prediction]) -> None:
    for name, kind in (("person", "User"), ("pipeline", "ServicePrincipal")):
        theirs = [
            assignment["properties"]["principalType"]
            for assignment in predictions[name].of_type("Microsoft.Authorization/roleAssignments")
            if assignment["properties"]["principalId"] == PERSON
        ]
        assert theirs == [kind] * 3


def test_no_key_is_read_anywhere(template: dict[str, Any]) -> None:
    for text in strings(template):
        if text.startswith("["):
            assert not re.search(r"\blist\w*\(", text, re.IGNORECASE), text
    for file in INFRA.rglob("*.bicep"):
        code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"\blist(Keys|AccountSas|ServiceSas|Secrets|\w+)?\(", code, re.IGNORECASE), file
        assert "getSecret(" not in code, file


def test_no_output_has_a_secret(template: dict[str, Any]) -> None:
    outputs = list(_all_outputs(template))
    assert len(outputs) > len(template["outputs"]), "the modules have outputs too"
    for name, output in outputs:
        assert not output["type"].lower().startswith("secure"), name
        if name == "FUNCTION_KEY_COMMAND":  # names a command, not a key
            assert "az functionapp keys list" in output["value"]
        elif name == "insightsConnectionString":  # an address: local authentication is off there
            assert "ConnectionString" in output["value"]
        else:
            told = f"{name} {output['value']}"
            for harmless in ("KEY_VAULT_NAME", "Microsoft.KeyVault", "resourceToken"):
                told = told.replace(harmless, "")
            assert not re.search(r"key|secret|password|token|sig=|connection", told, re.IGNORECASE), name
    assert "insightsConnectionString" not in json.dumps(template["outputs"])


def test_no_parameter_takes_a_secret(template: dict[str, Any]) -> None:
    # Secrets go into the vault by hand: neither a deployment's history nor azd's files ever hold one.
    assert all(not parameter["type"].lower().startswith("secure") for parameter in template["parameters"].values())


def test_keys_and_local_authentication_are_off(prediction: Prediction) -> None:
    storage = prediction.the("Microsoft.Storage/storageAccounts")["properties"]
    assert storage["allowSharedKeyAccess"] is False
    assert storage["defaultToOAuthAuthentication"] is True
    assert prediction.the("Microsoft.Insights/components")["properties"]["DisableLocalAuth"] is True
    assert prediction.the("Microsoft.OperationalInsights/workspaces")["properties"]["features"]["disableLocalAuth"]
    for type_ in ("Microsoft.CognitiveServices/accounts", "Microsoft.EventGrid/topics"):
        assert all(found["properties"]["disableLocalAuth"] is True for found in prediction.of_type(type_))
    assert all(
        found["properties"]["customSubDomainName"]
        for found in prediction.of_type("Microsoft.CognitiveServices/accounts")
    )
    policies = prediction.of_type("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    assert {policy["name"].rpartition("/")[2]: policy["properties"]["allow"] for policy in policies} == {
        "scm": False,
        "ftp": False,
    }


def test_nothing_in_storage_is_public(prediction: Prediction) -> None:
    storage = prediction.the("Microsoft.Storage/storageAccounts")["properties"]
    assert storage["allowBlobPublicAccess"] is False
    assert storage["allowCrossTenantReplication"] is False
    assert storage["networkAcls"]["bypass"] == "AzureServices"
    containers = prediction.of_type("Microsoft.Storage/storageAccounts/blobServices/containers")
    assert {container["properties"]["publicAccess"] for container in containers} == {"None"}


def test_everything_speaks_tls_1_2(prediction: Prediction) -> None:
    storage = prediction.the("Microsoft.Storage/storageAccounts")["properties"]
    assert (storage["minimumTlsVersion"], storage["supportsHttpsTrafficOnly"]) == ("TLS1_2", True)
    app = prediction.app["properties"]
    assert (app["httpsOnly"], app["siteConfig"]["minTlsVersion"]) == (True, "1.2")
    for topic in prediction.of_type("Microsoft.EventGrid/topics"):
        assert topic["properties"]["minimumTlsVersionAllowed"] == "1.2"


def test_the_vault_is_opened_by_roles_and_cannot_be_emptied(predictions: Mapping[str, Prediction]) -> None:
    with_vault = {name for name, prediction in predictions.items() if prediction.of_type("Microsoft.KeyVault/vaults")}
    assert with_vault == {"vault", "old API", "webhook secret", "everything"}
    for name in with_vault:
        vault = predictions[name].the("Microsoft.KeyVault/vaults")["properties"]
        assert vault["enableRbacAuthorization"]
        assert vault["enablePurgeProtection"]
        assert "accessPolicies" not in vault
        app = predictions[name].app
        assert app["properties"]["keyVaultReferenceIdentity"] in app["identity"]["userAssignedIdentities"]


def test_the_network_closes_everything_but_what_callers_need(prediction: Prediction) -> None:
    inside = bool(prediction.parameters.get("network"))
    for type_ in CLOSABLE:
        for resource in prediction.of_type(type_):
            properties = resource["properties"]
            assert properties["publicNetworkAccess"] == ("Disabled" if inside else "Enabled"), resource["id"]
            if "networkAcls" in properties:
                assert properties["networkAcls"]["defaultAction"] == ("Deny" if inside else "Allow")
    app_is_inside = inside and not prediction.parameters.get("appIsPublic", True)
    assert prediction.app["properties"]["publicNetworkAccess"] == ("Disabled" if app_is_inside else "Enabled")


def test_what_is_closed_has_a_private_endpoint_with_its_names(prediction: Prediction) -> None:
    endpoints = {_group(endpoint): endpoint for endpoint in prediction.of_type("Microsoft.Network/privateEndpoints")}
    expected: set[str] = set()
    if prediction.parameters.get("network"):
        expected = {"blob", "queue", "account"}
        expected |= {group for type_, groups in CLOSABLE.items() if prediction.of_type(type_) for group in groups}
        expected |= {"sites"} if prediction.app["properties"]["publicNetworkAccess"] == "Disabled" else set()
    assert set(endpoints) == expected
    zone_groups = prediction.of_type("Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    names = {group["name"].partition("/")[0]: repr(group["properties"]) for group in zone_groups}
    linked = repr(
        [link["name"] for link in prediction.of_type("Microsoft.Network/privateDnsZones/virtualNetworkLinks")]
    )
    for group, endpoint in endpoints.items():
        for zone in ZONES[group]:
            assert zone in names[endpoint["name"]]
            assert zone in linked


def test_the_app_sends_through_a_subnet_that_is_delegated_to_flex(prediction: Prediction) -> None:
    subnet = prediction.app["properties"].get("virtualNetworkSubnetId")
    if not prediction.parameters.get("network"):
        assert subnet is None
        assert not any(resource["type"].startswith("Microsoft.Network/") for resource in prediction.resources)
        return
    assert "outputs.appSubnetId.value" in subnet
    network = prediction.the("Microsoft.Network/virtualNetworks")["properties"]
    subnets = {part["name"]: part["properties"] for part in network["subnets"]}
    [delegation] = subnets["app"]["delegations"]
    assert delegation["properties"]["serviceName"] == "Microsoft.App/environments"
    assert "delegations" not in subnets["endpoints"]
    assert all(part["networkSecurityGroup"]["id"] for part in subnets.values())


@pytest.mark.parametrize("name", ["network", "everything"])
def test_subnets_do_not_overlap(predictions: Mapping[str, Prediction], name: str) -> None:
    network = predictions[name].the("Microsoft.Network/virtualNetworks")["properties"]
    [space] = map(ip_network, network["addressSpace"]["addressPrefixes"])
    app, endpoints = (ip_network(part["properties"]["addressPrefix"]) for part in network["subnets"])
    assert not app.overlaps(endpoints)
    assert app.prefixlen <= 26
    assert all(part.subnet_of(space) for part in (app, endpoints))  # pyright: ignore[reportArgumentType]


def _assignment(resource: Resource) -> Assignment:
    properties = resource["properties"]
    principal = str(properties["principalId"])
    if principal == PERSON:
        who = "person"
    elif "systemTopics/" in principal:
        who = "topic"
    else:
        assert re.search(r"format\('identity-\{0\}'.*\.outputs\.principalId\.value\]$", principal), principal
        who = "app"
    if who != "person":
        assert properties["principalType"] == "ServicePrincipal"
    [role] = re.findall(r"roleDefinitions/([0-9a-f-]{36})$", properties["roleDefinitionId"])
    scope = resource["id"].partition("/providers/Microsoft.Authorization/")[0].partition("/providers/")[2].split("/")
    return who, ROLES[role], "/".join([scope[0], *scope[1::2]])


def _all_outputs(template: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = list(template.get("outputs", {}).items())
    resources = template["resources"]
    for resource in resources.values() if isinstance(resources, dict) else resources:  # pyright: ignore[reportUnknownVariableType]
        nested = resource.get("properties", {}).get("template")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if nested:
            found += _all_outputs(nested)  # pyright: ignore[reportUnknownArgumentType]
    return found


def _group(endpoint: Resource) -> str:
    [connection] = endpoint["properties"]["privateLinkServiceConnections"]
    [group] = connection["properties"]["groupIds"]
    return group
