"""Settings that are no setting of the app, or never one of a deployment, each with the reason."""

from __future__ import annotations

from typing import Final

READ_BY_THE_PLATFORM: Final = {
    "AzureWebJobsStorage__credential": "host: sign in to storage with an identity",
    "AzureWebJobsStorage__clientId": "host: which identity",
    "AzureWebJobsStorage__blobServiceUri": "host: keys and the leases of timers",
    "AzureWebJobsStorage__queueServiceUri": "host: queue triggers",
    "AZURE_CLIENT_ID": "azure-identity: which identity",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "host: the address for telemetry",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "host: sign in to Application Insights with the identity",
    "AzureFunctionsJobHost__telemetryMode": "host: how it exports telemetry",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "OpenTelemetry: instrumentations that would export URLs",
    "PYTHON_THREADPOOL_THREAD_COUNT": "Python worker: how many functions run at the same time",
}

NEVER_PROVISIONED: Final = {
    "AzureWebJobsStorage": "a connection string contains a key: the identity signs in",
    "AZURE_OPENAI_API_KEY": "the identity signs in",
    "WEBSITE_HOSTNAME": "the platform sets it",
}
