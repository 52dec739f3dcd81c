"""Roles, and the absence of keys and secrets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from tests.infra.bicep import INFRA, PERSON, Prediction, Resource, scope_of, strings
from tests.infra.rules import every_deployment, given, has, pool_regions, rule_for

ACCOUNTS: Final = "Microsoft.CognitiveServices/accounts"
ASSIGNMENTS: Final = "Microsoft.Authorization/roleAssignments"
STORAGE: Final = "Microsoft.Storage/storageAccounts"
VAULTS: Final = "Microsoft.KeyVault/vaults"
VAULT_SWITCHES: Final = ("keyVault", "compatApiKeysInKeyVault")

ROLES: Final = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": "Storage Queue Data Message Sender",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "a97b65f3-24c7-4388-baec-2e87135dc908": "Cognitive Services User",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
}

type Assignment = tuple[str, str, str]
"""Principal, role, and type of the resource."""


def granted(prediction: Prediction) -> list[Assignment]:
    """Every role assignment of the deployment."""
    return [_assignment(resource) for resource in prediction.of_type(ASSIGNMENTS)]


def needed(prediction: Prediction) -> set[Assignment]:
    """Every role assignment that the parameters require, at the smallest scope that works."""
    parameters = prediction.parameters
    roles: set[Assignment] = {
        # On the account: the host creates containers of its own, and a user delegation key belongs to the account.
        ("app", "Storage Blob Data Owner", STORAGE),
        ("app", "Storage Queue Data Contributor", STORAGE),
        ("app", "Monitoring Metrics Publisher", "Microsoft.Insights/components"),
        ("app", "Cognitive Services OpenAI User", ACCOUNTS),
    }
    apis = {parameters.get("imageApi"), *(entry["api"] for entry in parameters.get("imageDeployments", []))}
    if apis & {"flux", "mai"}:
        roles.add(("app", "Cognitive Services User", ACCOUNTS))
    if parameters.get("blobCreatedEvents"):
        queue = "Microsoft.Storage/storageAccounts/queueServices/queues"
        roles.add(("topic", "Storage Queue Data Message Sender", queue))
    if _wants_vault(prediction):
        roles.add(("app", "Key Vault Secrets User", VAULTS))
    if "principalId" in parameters and parameters.get("assignPrincipalRoles", True):
        roles |= {
            ("person", "Storage Blob Data Contributor", STORAGE),
            ("person", "Storage Queue Data Contributor", STORAGE),
            ("person", "Cognitive Services OpenAI User", ACCOUNTS),
        }
        if _wants_vault(prediction):
            roles.add(("person", "Key Vault Secrets Officer", VAULTS))
    return roles


@rule_for(every_deployment)
def test_granted_roles_are_exactly_the_needed_ones(prediction: Prediction) -> None:
    assignments = granted(prediction)
    assert set(assignments) == needed(prediction)
    on_accounts = [one for one in assignments if one[2] == ACCOUNTS]
    others = [one for one in assignments if one[2] != ACCOUNTS]
    assert len(others) == len(set(others))
    # The same roles on each account of a pool.
    accounts = 1 + len(pool_regions(prediction))
    assert Counter(on_accounts) == dict.fromkeys(on_accounts, accounts)
    scopes = {scope_of(one) for one in prediction.of_type(ASSIGNMENTS) if f"/{ACCOUNTS}/" in scope_of(one)}
    assert len(scopes) == accounts


@rule_for(every_deployment)
def test_scope_of_each_role_is_a_single_resource(prediction: Prediction) -> None:
    existing = prediction.parameters.get("existingImageAccountName")
    resources = {
        resource["id"] for resource in prediction.resources if not resource["type"].endswith("/resourceGroups")
    }
    for assignment in prediction.of_type(ASSIGNMENTS):
        scope = scope_of(assignment)
        assert scope in resources or (existing and scope.endswith(f"/{ACCOUNTS}/{existing}")), scope


def test_roles_of_a_person_have_the_given_principal_type(predictions: Mapping[str, Prediction]) -> None:
    for name, kind in (("person", "User"), ("group", "Group")):
        types = [
            assignment["properties"]["principalType"]
            for assignment in predictions[name].of_type(ASSIGNMENTS)
            if assignment["properties"]["principalId"] == PERSON
        ]
        assert types == [kind] * 3


@rule_for(every_deployment)
def test_roles_on_the_image_account_are_named_after_the_principal(prediction: Prediction) -> None:
    # An existing account outlives the app. A new identity of the same name would collide with the old assignment.
    names = [
        assignment["name"]
        for assignment in prediction.of_type(ASSIGNMENTS)
        if f"/{ACCOUNTS}/" in scope_of(assignment) and assignment["properties"]["principalId"] != PERSON
    ]
    assert names
    assert [name for name in names if "outputs.principalId" not in name] == []


def test_template_reads_no_key(template: dict[str, Any]) -> None:
    for text in strings(template):
        if text.startswith("["):
            assert not re.search(r"\blist\w*\(", text, re.IGNORECASE), text
    for file in INFRA.rglob("*.bicep"):
        code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"\blist(Keys|AccountSas|ServiceSas|Secrets|\w+)?\(", code, re.IGNORECASE), file
        assert "getSecret(" not in code, file


def test_no_output_is_a_secret(template: dict[str, Any]) -> None:
    outputs = list(_all_outputs(template))
    assert len(outputs) > len(template["outputs"]), "the outputs of the modules are missing"
    for name, output in outputs:
        assert not output["type"].lower().startswith("secure"), name
        if name == "FUNCTION_KEY_COMMAND":  # a command, not a key
            assert "az functionapp keys list" in output["value"]
        elif name == "insightsConnectionString":  # an address: local authentication is off
            assert "ConnectionString" in output["value"]
        else:
            text = f"{name} {output['value']}"
            for harmless in ("KEY_VAULT_NAME", "Microsoft.KeyVault", "resourceToken"):
                text = text.replace(harmless, "")
            assert not re.search(r"key|secret|password|token|sig=|connection", text, re.IGNORECASE), name
    assert "insightsConnectionString" not in json.dumps(template["outputs"])


def test_no_parameter_is_a_secret(template: dict[str, Any]) -> None:
    # People write secrets into the vault: the deployment history and the files of azd never hold one.
    types = [declared.get("type", declared.get("$ref")) for declared in template["parameters"].values()]
    assert [type_ for type_ in types if type_.lower().startswith("secure")] == []


@rule_for(every_deployment)
def test_keys_and_passwords_are_off(prediction: Prediction) -> None:
    storage = prediction.the(STORAGE)["properties"]
    assert storage["allowSharedKeyAccess"] is False
    assert storage["defaultToOAuthAuthentication"] is True
    assert prediction.the("Microsoft.Insights/components")["properties"]["DisableLocalAuth"] is True
    assert prediction.the("Microsoft.OperationalInsights/workspaces")["properties"]["features"]["disableLocalAuth"]
    policies = prediction.of_type("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    publishing = {policy["name"].rpartition("/")[2]: policy["properties"]["allow"] for policy in policies}
    assert publishing == {"scm": False, "ftp": False}


@rule_for(has(ACCOUNTS))
def test_image_account_has_no_keys_and_its_own_host_name(prediction: Prediction) -> None:
    for account in prediction.of_type(ACCOUNTS):
        assert account["properties"]["disableLocalAuth"] is True
        # Entra ID tokens work only with a custom subdomain.
        assert account["properties"]["customSubDomainName"] == account["name"]


@rule_for(every_deployment)
def test_storage_has_no_public_blob(prediction: Prediction) -> None:
    storage = prediction.the(STORAGE)["properties"]
    assert storage["allowBlobPublicAccess"] is False
    assert storage["allowCrossTenantReplication"] is False
    assert storage["networkAcls"]["bypass"] == "AzureServices"
    containers = prediction.of_type("Microsoft.Storage/storageAccounts/blobServices/containers")
    assert {container["properties"]["publicAccess"] for container in containers} == {"None"}


@rule_for(every_deployment)
def test_storage_and_app_require_tls_1_2(prediction: Prediction) -> None:
    storage = prediction.the(STORAGE)["properties"]
    assert (storage["minimumTlsVersion"], storage["supportsHttpsTrafficOnly"]) == ("TLS1_2", True)
    app = prediction.app["properties"]
    assert (app["httpsOnly"], app["siteConfig"]["minTlsVersion"]) == (True, "1.2")


@rule_for(every_deployment)
def test_vault_exists_if_one_of_its_switches_is_on(prediction: Prediction) -> None:
    assert has(VAULTS)(prediction) is _wants_vault(prediction)


@rule_for(has(VAULTS))
def test_vault_uses_roles_and_purge_protection(prediction: Prediction) -> None:
    vault = prediction.the(VAULTS)["properties"]
    assert vault["enableRbacAuthorization"]
    assert vault["enablePurgeProtection"]
    assert "accessPolicies" not in vault
    app = prediction.app
    assert app["properties"]["keyVaultReferenceIdentity"] in app["identity"]["userAssignedIdentities"]


def _wants_vault(prediction: Prediction) -> bool:
    return any(given(switch)(prediction) for switch in VAULT_SWITCHES)


def _assignment(resource: Resource) -> Assignment:
    properties = resource["properties"]
    principal = str(properties["principalId"])
    if principal == PERSON:
        name = "person"
    elif "systemTopics/" in principal:
        name = "topic"
    else:
        assert re.search(r"format\('identity-\{0\}'.*\.outputs\.principalId\.value\]$", principal), principal
        name = "app"
    if name != "person":
        assert properties["principalType"] == "ServicePrincipal"
    [role] = re.findall(r"roleDefinitions/([0-9a-f-]{36})$", properties["roleDefinitionId"])
    scope = scope_of(resource).partition("/providers/")[2].split("/")
    return name, ROLES[role], "/".join([scope[0], *scope[1::2]])


def _all_outputs(template: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = list(template.get("outputs", {}).items())
    resources = template["resources"]
    for resource in resources.values() if isinstance(resources, dict) else resources:  # pyright: ignore[reportUnknownVariableType]
        nested = resource.get("properties", {}).get("template")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if nested:
            found += _all_outputs(nested)  # pyright: ignore[reportUnknownArgumentType]
    return found
