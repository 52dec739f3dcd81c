"""Every setting that the app reads is provisioned, and the other way round; and the app takes their values."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

import pytest

from imagegen.settings import Settings, read_settings
from tests.infra.bicep import ROOT, Prediction

SETTINGS: Final = {field.alias for field in Settings.model_fields.values() if field.alias}

READ_BY_THE_PLATFORM: Final = {
    "AzureWebJobsStorage__credential": "host: sign in to storage with an identity",
    "AzureWebJobsStorage__clientId": "host: which identity",
    "AzureWebJobsStorage__blobServiceUri": "host: keys and the leases of timers",
    "AzureWebJobsStorage__queueServiceUri": "host: queue triggers",
    "AZURE_CLIENT_ID": "azure-identity: which identity",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "host: where telemetry goes",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "host: sign in there with the identity",
    "PYTHON_THREADPOOL_THREAD_COUNT": "Python worker: how many functions run at once",
}

# Settings of the contract whose code is not here yet. Each leaves this list with the commit that reads it.
READ_BY_CODE_THAT_IS_COMING: Final = {
    "WEBHOOK_SECRET",
    "WEBHOOK_ALLOWED_HOSTS",
    "EVENTGRID_TOPIC_ENDPOINT",
}

NEVER_PROVISIONED: Final = {
    "AzureWebJobsStorage": "a connection string has a key in it: the identity signs in",
    "AZURE_OPENAI_API_KEY": "the identity signs in",
    "EVENTGRID_TOPIC_KEY": "the identity signs in",
    "WEBSITE_HOSTNAME": "the platform sets it",
}

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

SECRETS: Final = {"COMPAT_API_KEYS": "COMPAT-API-KEYS", "WEBHOOK_SECRET": "WEBHOOK-SECRET"}


@pytest.fixture(scope="module")
def bindings() -> list[dict[str, Any]]:
    """What every function of the app is bound to."""
    # In a process of its own: an app object tells its functions once.
    code = (
        "import json, function_app\n"
        "functions = function_app.app.get_functions()\n"
        "print(json.dumps([b for f in functions for b in json.loads(f.get_function_json())['bindings']]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_every_setting_that_the_app_reads_is_provisioned(predictions: Mapping[str, Prediction]) -> None:
    provisioned = {name for prediction in predictions.values() for name in prediction.settings}
    assert SETTINGS - provisioned - set(NEVER_PROVISIONED) == set()


def test_every_provisioned_setting_is_read(prediction: Prediction) -> None:
    known = SETTINGS | set(READ_BY_THE_PLATFORM) | READ_BY_CODE_THAT_IS_COMING
    assert set(prediction.settings) - known == set()


def test_keys_and_what_flex_refuses_are_never_provisioned(prediction: Prediction) -> None:
    assert set(prediction.settings) & set(NEVER_PROVISIONED) == set()
    assert [name for name in prediction.settings if name.startswith(FLEX_REFUSES_OR_IGNORES)] == []


def test_what_the_platform_reads_is_always_provisioned(prediction: Prediction) -> None:
    assert set(READ_BY_THE_PLATFORM) <= set(prediction.settings)
    assert prediction.settings["AzureWebJobsStorage__credential"] == "managedidentity"


def test_no_setting_is_empty(prediction: Prediction) -> None:
    assert [name for name, value in prediction.settings.items() if not value] == []


def test_the_app_takes_the_provisioned_settings(prediction: Prediction) -> None:
    settings = read_settings(_as_the_app_sees_them(prediction.settings))
    given = prediction.parameters
    assert settings.retention_days == given.get("retentionDays", 30)
    assert settings.poll_schedule == given.get("pollSchedule", "0 * * * * *")
    assert settings.storage_client_id
    assert settings.api_key is None


def test_every_given_value_arrives(predictions: Mapping[str, Prediction]) -> None:
    settings = predictions["everything"].settings
    given = predictions["everything"].parameters
    assert settings["AZURE_OPENAI_ENDPOINT"] == given["imageEndpoint"]
    assert settings["AZURE_OPENAI_SCOPE"] == given["imageTokenScope"]
    assert settings["AZURE_OPENAI_API_VERSION"] == given["imageApiVersion"]
    assert settings["AZURE_OPENAI_DEPLOYMENT"] == given["imageDeploymentName"]
    assert json.loads(settings["IMAGE_DEPLOYMENTS"]) == given["imageDeployments"]
    assert settings["REPEAT_LOST_CALLS"] == "false"
    assert settings["OPERATION_LOCATION_ALLOWED_ORIGINS"] == given["operationLocationAllowedOrigins"]
    assert settings["IMAGE_URL_ALLOWED_HOSTS"] == given["imageUrlAllowedHosts"]
    assert settings["WEBHOOK_ALLOWED_HOSTS"] == given["webhookAllowedHosts"]
    assert settings["GENERATION_TIMEOUT_SECONDS"] == str(given["generationTimeoutSeconds"])
    assert settings["SAS_LIFETIME_SECONDS"] == str(given["sasLifetimeSeconds"])
    assert settings["MAX_IMAGE_BYTES"] == str(given["maxImageBytes"])
    assert settings["MAX_ACTIVE_GENERATIONS"] == str(given["maxActiveGenerations"])
    assert settings["MAX_DUE_PER_INSTANCE"] == str(given["maxDuePerInstance"])
    assert settings["PUBLIC_BASE_URL"] == given["publicBaseUrl"]
    assert settings["PYTHON_THREADPOOL_THREAD_COUNT"] == str(given["httpConcurrency"])


def test_limits_of_the_parameters_are_those_of_the_settings(template: dict[str, Any]) -> None:
    parameters = {
        "GENERATION_TIMEOUT_SECONDS": "generationTimeoutSeconds",
        "SAS_LIFETIME_SECONDS": "sasLifetimeSeconds",
        "MAX_IMAGE_BYTES": "maxImageBytes",
        "MAX_ACTIVE_GENERATIONS": "maxActiveGenerations",
        "MAX_DUE_PER_INSTANCE": "maxDuePerInstance",
        "RETENTION_DAYS": "retentionDays",
    }
    properties = Settings.model_json_schema()["properties"]
    for setting, name in parameters.items():
        parameter = template["parameters"][name]
        limits = (parameter["minValue"], parameter["maxValue"])
        assert limits == (properties[setting]["minimum"], properties[setting]["maximum"]), setting


@pytest.mark.parametrize(
    ("api", "host"),
    [
        ("defaults", "openai.azure.com"),
        ("operations", "openai.azure.com"),
        ("flux", "api.cognitive.microsoft.com"),
        ("mai", "services.ai.azure.com"),
    ],
)
def test_endpoint_is_the_host_of_the_account_that_serves_the_api(
    predictions: Mapping[str, Prediction], api: str, host: str
) -> None:
    endpoint = predictions[api].settings["AZURE_OPENAI_ENDPOINT"]
    assert "outputs.subdomain.value" in endpoint
    assert endpoint.endswith(f", '{host}')]")


def test_secrets_are_references_to_the_vault_of_the_deployment(prediction: Prediction) -> None:
    for setting, secret in SECRETS.items():
        if setting in prediction.settings:
            vault = prediction.the("Microsoft.KeyVault/vaults")["name"]
            assert prediction.settings[setting] == f"@Microsoft.KeyVault(VaultName={vault};SecretName={secret})"


def test_each_secret_has_its_own_switch(predictions: Mapping[str, Prediction]) -> None:
    of = {name: set(prediction.settings) & set(SECRETS) for name, prediction in predictions.items()}
    assert of["defaults"] == of["vault"] == set()
    assert of["old API"] == {"COMPAT_API_KEYS"}
    assert of["webhook secret"] == {"WEBHOOK_SECRET"}
    assert of["everything"] == set(SECRETS)


def test_every_name_in_a_binding_is_provisioned(prediction: Prediction, bindings: list[dict[str, Any]]) -> None:
    named = set(re.findall(r"%(\w+)%", json.dumps(bindings)))
    assert "POLL_SCHEDULE" in named
    assert named - set(prediction.settings) == set()


def test_every_connection_in_a_binding_is_the_provisioned_one(bindings: list[dict[str, Any]]) -> None:
    assert {binding["connection"] for binding in bindings if binding.get("connection")} <= {"AzureWebJobsStorage"}


def test_there_is_one_timer(bindings: list[dict[str, Any]]) -> None:
    # On Flex each timer keeps instances of its own awake, and is paid by itself.
    assert [binding["type"] for binding in bindings].count("timerTrigger") == 1


def test_every_queue_that_triggers_is_provisioned_with_its_poison_queue(
    predictions: Mapping[str, Prediction], bindings: list[dict[str, Any]]
) -> None:
    queues = predictions["defaults"].names("Microsoft.Storage/storageAccounts/queueServices/queues")
    named = {"generations-due", "generation-requests"}
    named |= {binding["queueName"] for binding in bindings if binding["type"] in ("queueTrigger", "queue")}
    assert named | {f"{queue}-poison" for queue in named} == queues


def _as_the_app_sees_them(settings: Mapping[str, str]) -> dict[str, str]:
    """With values where a deployment would fill them in."""
    seen = dict(settings)
    for name, value in seen.items():
        if value.startswith("[") and not value.startswith("[{"):
            seen[name] = "https://filled-in.example.com" if _is_address(name) else "filled-in"
        if value.startswith("@Microsoft.KeyVault("):
            seen[name] = "resolved"
    return seen


def _is_address(name: str) -> bool:
    return name.lower().endswith(("uri", "endpoint"))
