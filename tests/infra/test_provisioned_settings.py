"""The app settings of a deployment: valid, complete, and without keys."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from imagegen.settings import Settings, read_settings
from tests.infra.bicep import ROOT, Prediction
from tests.infra.bicep_source import app_settings, tuning_settings
from tests.infra.rules import every_deployment, given, rule_for
from tests.infra.setting_names import NEVER_PROVISIONED, READ_BY_THE_PLATFORM

FLEX_REFUSES_OR_IGNORES: Final = (
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_RUNTIME",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "TZ",
    "WEBSITE_CONTENT",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_TIME_ZONE",
    "WEBSITE_VNET_ROUTE_ALL",
)

HOSTS: Final = {
    "defaults": "openai.azure.com",
    "operations": "openai.azure.com",
    "flux": "api.cognitive.microsoft.com",
    "mai": "services.ai.azure.com",
}
"""The host name suffix of the image account, by parameter set."""


def secret_settings() -> set[str]:
    """Settings that hold a secret, by their type in the app or by their name."""
    typed = {field.alias for field in Settings.model_fields.values() if "SecretStr" in repr(field.annotation)}
    named = {name for name in app_settings() if re.search(r"(KEYS?|SECRET|PASSWORD|TOKEN)$", name)}
    return {name for name in typed | named if name} - NEVER_PROVISIONED.keys()


def test_reader_of_the_text_agrees_with_the_compiler(predictions: Mapping[str, Prediction]) -> None:
    assert app_settings().keys() == {name for prediction in predictions.values() for name in prediction.settings}


@rule_for(every_deployment)
def test_platform_gets_what_it_needs_and_nothing_it_refuses(prediction: Prediction) -> None:
    settings = prediction.settings
    assert settings.keys() & NEVER_PROVISIONED.keys() == set()
    assert [name for name in settings if name.startswith(FLEX_REFUSES_OR_IGNORES)] == []
    assert [name for name, value in settings.items() if not value] == []
    assert READ_BY_THE_PLATFORM.keys() - settings.keys() == set()
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    # A misspelt word would turn the telemetry off: Application Insights accepts no key.
    client_id = settings["AZURE_CLIENT_ID"].removeprefix("[").removesuffix("]")
    assert client_id.endswith(".outputs.clientId.value")
    telemetry = f"[format('ClientId={{0}};Authorization=AAD', {client_id})]"
    assert settings["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == telemetry


@rule_for(every_deployment)
def test_app_accepts_the_provisioned_settings(prediction: Prediction) -> None:
    settings = read_settings(_resolved(prediction.settings))
    parameters = prediction.parameters
    assert settings.retention_days == parameters.get("retentionDays", 30)
    assert settings.poll_schedule == parameters.get("pollSchedule", "0 * * * * *")
    assert settings.storage_client_id
    assert settings.api_key is None


def test_every_given_value_becomes_a_setting(predictions: Mapping[str, Prediction]) -> None:
    settings = predictions["everything"].settings
    parameters = predictions["everything"].parameters
    assert settings["AZURE_OPENAI_DEPLOYMENT"] == parameters["imageDeploymentName"]
    assert json.loads(settings["IMAGE_DEPLOYMENTS"]) == parameters["imageDeployments"]
    assert settings["GENERATION_TIMEOUT_SECONDS"] == str(parameters["generationTimeoutSeconds"])
    given = parameters["extraSettings"]
    assert given.keys() == set(tuning_settings())
    assert given.items() <= settings.items()
    assert predictions["empty settings"].settings == predictions["defaults"].settings


def test_misspelt_extra_setting_is_refused(template: dict[str, Any]) -> None:
    assert template["parameters"]["extraSettings"]["$ref"] == "#/definitions/tuning"
    assert template["definitions"]["tuning"]["additionalProperties"] is False


@rule_for(every_deployment)
def test_no_more_generations_than_the_quota_can_deliver(prediction: Prediction) -> None:
    parameters = prediction.parameters
    calls_per_minute = parameters.get("imageModelCapacity", 2)
    deliverable = calls_per_minute * parameters.get("generationTimeoutSeconds", 3600) // 60
    asked = parameters.get("extraSettings", {}).get("MAX_ACTIVE_GENERATIONS")
    assert prediction.settings["MAX_ACTIVE_GENERATIONS"] == (asked or str(deliverable))


def test_quota_is_the_capacity_where_a_unit_is_one_request(predictions: Mapping[str, Prediction]) -> None:
    expected = {
        "defaults": "2",
        "capacity": "7",
        "values": "8",  # from extraSettings
        "existing account": None,  # its model and its capacity are not known
        "flux": None,  # other units
        "several models": None,  # each entry has its own quota
    }
    found = {name: predictions[name].settings.get("AZURE_OPENAI_REQUESTS_PER_MINUTE") for name in expected}
    assert found == expected
    entries = read_settings(_resolved(predictions["several models"].settings)).deployments
    assert [entry.requests_per_minute for entry in entries] == [None, 4]


def test_every_call_of_an_instance_has_a_thread(
    predictions: Mapping[str, Prediction], bindings: list[dict[str, Any]]
) -> None:
    queues = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))["extensions"]["queues"]
    kinds = [binding["type"] for binding in bindings]
    messages = kinds.count("queueTrigger") * (queues["batchSize"] + queues["newBatchThreshold"])
    for prediction in predictions.values():
        needed = prediction.parameters.get("httpConcurrency", 16) + messages + kinds.count("timerTrigger")
        assert int(prediction.settings["PYTHON_THREADPOOL_THREAD_COUNT"]) == needed, prediction


def test_endpoint_is_the_host_that_serves_the_api(predictions: Mapping[str, Prediction]) -> None:
    for name, host in HOSTS.items():
        endpoint = predictions[name].settings["AZURE_OPENAI_ENDPOINT"]
        assert "outputs.subdomain.value" in endpoint
        assert endpoint.endswith(f", '{host}')]"), name


def test_secrets_are_references_to_the_vault(predictions: Mapping[str, Prediction]) -> None:
    assert secret_settings() == {"COMPAT_API_KEYS"}
    for setting in secret_settings():
        deployments = [prediction for prediction in predictions.values() if setting in prediction.settings]
        assert deployments == [one for one in predictions.values() if given("compatApiKeysInKeyVault")(one)]
        assert deployments
        for prediction in deployments:
            vault = prediction.the("Microsoft.KeyVault/vaults")["name"]
            reference = f"@Microsoft.KeyVault(VaultName={vault};SecretName={setting.replace('_', '-')})"
            assert prediction.settings[setting] == reference, prediction


def test_every_name_in_a_binding_is_provisioned(
    predictions: Mapping[str, Prediction], bindings: list[dict[str, Any]]
) -> None:
    named = set(re.findall(r"%(\w+)%", json.dumps(bindings)))
    assert "POLL_SCHEDULE" in named
    assert [prediction for prediction in predictions.values() if named - prediction.settings.keys()] == []


def test_every_connection_in_a_binding_is_provisioned(bindings: list[dict[str, Any]]) -> None:
    assert {binding["connection"] for binding in bindings if binding.get("connection")} == {"AzureWebJobsStorage"}


def test_app_has_one_timer(bindings: list[dict[str, Any]]) -> None:
    # Flex Consumption keeps instances ready for each timer, and bills each.
    assert [binding["type"] for binding in bindings].count("timerTrigger") == 1


def test_every_trigger_queue_has_a_poison_queue(
    predictions: Mapping[str, Prediction], bindings: list[dict[str, Any]]
) -> None:
    queues = predictions["defaults"].names("Microsoft.Storage/storageAccounts/queueServices/queues")
    named = {binding["queueName"] for binding in bindings if binding["type"] in ("queueTrigger", "queue")}
    assert len(named) == 3
    assert named | {f"{queue}-poison" for queue in named} == queues


def _resolved(settings: Mapping[str, str]) -> dict[str, str]:
    """Replace expressions and Key Vault references, as a deployment does."""
    resolved = dict(settings)
    for name, value in resolved.items():
        if value.startswith("[") and not value.startswith("[{"):
            is_address = name.lower().endswith(("uri", "endpoint"))
            resolved[name] = "https://resolved.example.com" if is_address else "resolved"
        if value.startswith("@Microsoft.KeyVault("):
            resolved[name] = "resolved"
    return resolved
