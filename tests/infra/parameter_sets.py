"""Parameter sets of the predictions: the defaults, each switch alone, and all together."""

from __future__ import annotations

from typing import Any, Final

from tests.infra.bicep import PERSON

_EVERY_STRING: Final[dict[str, Any]] = {
    "resourceGroupName": "rg-of-another-name",
    "extraTags": {"owner": "images"},
    "imageAccountLocation": "westus3",
    "imageAccountKind": "OpenAI",
    "imageDeploymentName": "pictures",
    "imageModelName": "gpt-image-1.5",
    "imageModelVersion": "2025-12-16",
    "imageModelSku": "DataZoneStandard",
    "imageModelCapacity": 9,
    "imageApiVersion": "2025-04-01-preview",
    "imageEndpoint": "https://gateway.example.com",
    "imageTokenScope": "https://ai.azure.com/.default",
    "publicBaseUrl": "https://images.example.com/api",
    "operationLocationAllowedOrigins": "https://operations.example.com",
    "imageUrlAllowedHosts": "pictures.example.com",
    "webhookAllowedHosts": ".example.com",
    "alertEmails": "first@example.com, second@example.com",
}

_EVERY_NUMBER: Final[dict[str, Any]] = {
    "pollSchedule": "*/15 * * * * *",
    "instanceMemoryMB": 4096,
    "maximumInstanceCount": 100,
    "alwaysReadyHttpInstances": 2,
    "httpConcurrency": 32,
    "updateStrategy": "RollingUpdate",
    "generationTimeoutSeconds": 900,
    "sasLifetimeSeconds": 86400,
    "maxImageBytes": 1048576,
    "maxActiveGenerations": 50,
    "maxDuePerInstance": 20,
    "repeatLostCalls": False,
    "storageRedundancy": "Standard_GZRS",
    "retentionDays": 90,
    "softDeleteDays": 14,
    "logRetentionDays": 90,
    "logDailyCapGb": -1,
    "alertFailedGenerations": 1,
    "alertThrottledCalls": 7,
    "monthlyBudget": 500,
    "budgetStartDate": "2026-11-01",
}

_EVERY_SWITCH: Final[dict[str, Any]] = {
    "principalId": PERSON,
    "grantCognitiveServicesUser": True,
    "keyVault": True,
    "compatApiKeysInKeyVault": True,
    "webhookSecretInKeyVault": True,
    "eventGridTopic": True,
    "blobCreatedEvents": True,
    "network": True,
    "networkAddressPrefix": "10.99.0.0/22",
    "appIsPublic": False,
}

_SEVERAL_MODELS: Final[dict[str, Any]] = {
    "moreImageDeployments": [
        {
            "name": "FLUX.2-pro",
            "modelFormat": "Black Forest Labs",
            "modelName": "FLUX.2-pro",
            "modelVersion": "1",
            "skuName": "GlobalStandard",
            "capacity": 2,
        }
    ],
    "imageDeployments": [
        {"name": "gpt-image-2", "api": "images"},
        {"name": "FLUX.2-pro", "api": "flux", "endpoint": "https://it's.example.com"},
    ],
}

PARAMETER_SETS: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "person": {"principalId": PERSON},
    "pipeline": {"principalId": PERSON, "principalType": "ServicePrincipal"},
    "existing account": {
        "existingImageAccountName": "theirs",
        "existingImageAccountResourceGroup": "rg-theirs",
        "principalId": PERSON,
    },
    "existing account, network": {
        "existingImageAccountName": "theirs",
        "existingImageAccountResourceGroup": "rg-theirs",
        "network": True,
    },
    "flux": {
        "imageApi": "flux",
        "imageModelFormat": "Black Forest Labs",
        "imageModelName": "FLUX.2-pro",
        "imageDeploymentName": "FLUX.2-pro",
    },
    "mai": {"imageApi": "mai"},
    "operations": {"imageApi": "operations"},
    "wider role": {"grantCognitiveServicesUser": True},
    "several models": _SEVERAL_MODELS,
    "values": {**_EVERY_STRING, **_EVERY_NUMBER},
    "second region": {"storageRedundancy": "Standard_GZRS"},
    "least retention": {"retentionDays": 1},
    "vault": {"keyVault": True},
    "old API": {"compatApiKeysInKeyVault": True},
    "webhook secret": {"webhookSecretInKeyVault": True},
    "topic": {"eventGridTopic": True},
    "blob events": {"blobCreatedEvents": True},
    "network": {"network": True},
    "network, app inside": {"network": True, "appIsPublic": False},
    "app inside without network": {"appIsPublic": False},
    "no alerts": {"alerts": False},
    "no budget": {"monthlyBudget": 0},
    "everything": {**_EVERY_STRING, **_EVERY_NUMBER, **_EVERY_SWITCH, **_SEVERAL_MODELS},
}
