"""Parameter sets of the predictions: the defaults, each switch alone, and all together."""

from __future__ import annotations

from typing import Any, Final

from tests.infra.bicep import PERSON

_EVERY_STRING: Final[dict[str, Any]] = {
    "resourceGroupName": "rg-of-another-name",
    "extraTags": {"owner": "images"},
    "imageAccountLocation": "polandcentral",
    "imageDeploymentName": "pictures",
    "imageModelName": "gpt-image-1.5",
    "imageModelVersion": "2025-12-16",
    "imageModelSku": "DataZoneStandard",
    "imageModelCapacity": 9,
    "alertEmails": "first@example.com, second@example.com",
    "extraSettings": {
        "AZURE_OPENAI_API_VERSION": "2025-04-01-preview",
        "AZURE_OPENAI_ENDPOINT": "https://gateway.example.com",
        "AZURE_OPENAI_REQUESTS_PER_MINUTE": "8",
        "AZURE_OPENAI_SCOPE": "https://ai.azure.com/.default",
        "IMAGE_URL_ALLOWED_HOSTS": "pictures.example.com",
        "MAX_ACTIVE_GENERATIONS": "50",
        "MAX_DUE_PER_INSTANCE": "20",
        "MAX_IMAGE_BYTES": "1048576",
        "OPERATION_LOCATION_ALLOWED_ORIGINS": "https://operations.example.com",
        "PUBLIC_BASE_URL": "https://images.example.com/api",
        "REPEAT_LOST_CALLS": "false",
        "SAS_LIFETIME_SECONDS": "86400",
    },
}

_EVERY_NUMBER: Final[dict[str, Any]] = {
    "pollSchedule": "*/15 * * * * *",
    "instanceMemoryMB": 4096,
    "maximumInstanceCount": 100,
    "alwaysReadyHttpInstances": 2,
    "alwaysReadyQueueInstances": 3,
    "httpConcurrency": 32,
    "updateStrategy": "RollingUpdate",
    "generationTimeoutSeconds": 900,
    "storageRedundancy": "Standard_GZRS",
    "retentionDays": 90,
    "blobSoftDeleteDays": 14,
    "logRetentionDays": 90,
    "logDailyCapGb": -1,
    "monthlyBudget": 500,
    "budgetStartDate": "2026-11-15",
}

_EVERY_SWITCH: Final[dict[str, Any]] = {
    "principalId": PERSON,
    "keyVault": True,
    "compatApiKeysInKeyVault": True,
    "openTelemetry": True,
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
        {"name": "FLUX.2-pro", "api": "flux", "endpoint": "https://example.com/it's", "requestsPerMinute": 4},
    ],
}

PARAMETER_SETS: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "person": {"principalId": PERSON},
    "group": {"principalId": PERSON, "principalType": "Group"},
    "pipeline": {"principalId": PERSON, "principalType": "ServicePrincipal", "assignPrincipalRoles": False},
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
    "several models": _SEVERAL_MODELS,
    "values": {**_EVERY_STRING, **_EVERY_NUMBER},
    "second region": {"storageRedundancy": "Standard_GZRS"},
    "least retention": {"retentionDays": 1},
    "vault": {"keyVault": True},
    "old API": {"compatApiKeysInKeyVault": True},
    "blob events": {"blobCreatedEvents": True},
    "network": {"network": True},
    "network, app inside": {"network": True, "appIsPublic": False},
    "app inside without network": {"appIsPublic": False},
    "alerts": {"alertEmails": "ops@example.com"},
    "budget": {"monthlyBudget": 50},
    # azd passes an empty string for each variable that its environment lacks.
    "empty settings": {"extraSettings": {"AZURE_OPENAI_ENDPOINT": "", "MAX_IMAGE_BYTES": ""}, "budgetStartDate": ""},
    "capacity": {"imageModelName": "gpt-image-1.5", "imageModelCapacity": 7},
    "second account": {"imageAccountLocation": "westus3"},
    "everything": {**_EVERY_STRING, **_EVERY_NUMBER, **_EVERY_SWITCH, **_SEVERAL_MODELS},
}
