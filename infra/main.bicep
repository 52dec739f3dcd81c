// Everything that the app needs, in a resource group of its own: `azd up`, or
// `az deployment sub create --location <region> --template-file infra/main.bicep --parameters environmentName=<name> location=<region>`.
targetScope = 'subscription'

import { appDeployment, imageDeployment } from 'types.bicep'

// ---- Where and whose ----

@description('Name of the environment. It names the resource group, and every other name is derived from it.')
@minLength(1)
@maxLength(64)
param environmentName string

@description('Region of everything but, where imageAccountLocation says so, the image account.')
@minLength(1)
@metadata({ azd: { type: 'location' } })
param location string

@description('Name of the resource group; empty: rg-<environmentName>.')
@maxLength(90)
param resourceGroupName string = ''

@description('Tags of every resource, beside azd-env-name.')
param extraTags { *: string } = {}

@description('Object id of a person, group or pipeline who may see records, queues and pictures and call the models; empty: nobody.')
param principalId string = ''

@description('What principalId is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

// ---- Image models ----

@description('Name of an account that exists, to use its models; empty: an account is made.')
@maxLength(64)
param existingImageAccountName string = ''

@description('Resource group of that account.')
@maxLength(90)
param existingImageAccountResourceGroup string = ''

@description('Region of the new account: not every region has every image model. Empty: the same as location.')
param imageAccountLocation string = ''

@description('Kind of the new account: AIServices has every image model, OpenAI those of OpenAI only.')
@allowed(['AIServices', 'OpenAI'])
param imageAccountKind string = 'AIServices'

@description('Name of the deployment that the app uses when a caller names none; in the new account it is made.')
@minLength(2)
@maxLength(64)
param imageDeploymentName string = 'gpt-image-2'

@description('Who made its model: OpenAI, "Black Forest Labs", Microsoft.')
param imageModelFormat string = 'OpenAI'

@description('Its model. Models retire: see docs/models.md.')
param imageModelName string = 'gpt-image-2'

@description('Its version; empty: the default version of the model.')
param imageModelVersion string = ''

@description('How it is billed and where it runs, such as GlobalStandard or DataZoneStandard.')
param imageModelSku string = 'GlobalStandard'

@description('Its quota, out of what the subscription has in that region.')
@minValue(1)
param imageModelCapacity int = 1

@description('More deployments to make in the new account. Name them to the app in imageDeployments.')
param moreImageDeployments imageDeployment[] = []

@description('The API that the deployment speaks: images (gpt-image), flux, mai, or the retired operations.')
@allowed(['images', 'flux', 'mai', 'operations'])
param imageApi string = 'images'

@description('Its api-version; empty: the default of the app (for images, the v1 route).')
param imageApiVersion string = ''

@description('Its endpoint; empty: the host of the account on which imageApi is served.')
param imageEndpoint string = ''

@description('Scope of the tokens for the image service; empty: the default of the app. Newer services want https://ai.azure.com/.default.')
param imageTokenScope string = ''

@description('Several deployments among which callers choose by "model", the first being the default; none: the one above.')
param imageDeployments appDeployment[] = []

@description('Give the app Cognitive Services User beside Cognitive Services OpenAI User. Needed for FLUX and MAI; imageApi flux and mai turn it on.')
param grantCognitiveServicesUser bool = false

// ---- The app ----

@description('When the timer runs: six-field NCRONTAB, UTC. Every tick costs at least one second of memory: see docs/deploy.md.')
@minLength(11)
param pollSchedule string = '0 * * * * *'

@description('Memory of one instance. 512 carries few and small pictures; see docs/deploy.md.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('How far the app may scale out, which bounds what a flood can cost.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Instances that are always there for HTTP, against cold starts. They cost money day and night.')
@minValue(0)
@maxValue(20)
param alwaysReadyHttpInstances int = 0

@description('HTTP requests that one instance takes at once; as many Python threads.')
@minValue(1)
@maxValue(100)
param httpConcurrency int = 16

@description('Where clients reach the app, with the route prefix, when a gateway stands in front: https://images.example.com/api. Empty: the host name of the app.')
param publicBaseUrl string = ''

@description('Seconds until a generation fails that has not finished.')
@minValue(30)
@maxValue(86400)
param generationTimeoutSeconds int = 3600

@description('Seconds that a link to a picture is valid. At most six days: a user delegation key lives for seven.')
@minValue(60)
@maxValue(518400)
param sasLifetimeSeconds int = 3600

@description('Largest picture that is copied, in bytes. The instance must have the memory.')
@minValue(1024)
@maxValue(1073741824)
param maxImageBytes int = 67108864

@description('Active generations at which new ones are answered 429.')
@minValue(1)
@maxValue(100000)
param maxActiveGenerations int = 1000

@description('Active generations that the timer takes on itself at once. What is due beyond that goes to the queue.')
@minValue(1)
@maxValue(10000)
param maxDuePerInstance int = 200

@description('Whether a call whose answer was lost is made again, and may be billed twice. Otherwise the generation fails.')
param repeatLostCalls bool = true

@description('Origins beside the endpoint that operation-location may name, separated by commas.')
param operationLocationAllowedOrigins string = ''

@description('Hosts that pictures may come from, separated by commas; empty: any public https host.')
param imageUrlAllowedHosts string = ''

@description('Hosts that webhooks may go to, separated by commas; empty: those of Logic Apps and Power Automate.')
param webhookAllowedHosts string = ''

// ---- Secrets ----

@description('Make a Key Vault, for the two switches below. Put the secrets in first, then turn the switch: docs/deploy.md.')
param keyVault bool = false

@description('The vault holds the secret COMPAT-API-KEYS: the keys of the old API. Otherwise the old API is off.')
param compatApiKeysInKeyVault bool = false

@description('The vault holds the secret WEBHOOK-SECRET: what webhooks are signed with.')
param webhookSecretInKeyVault bool = false

// ---- Storage ----

@description('Copies of the data: LRS is three in one building, ZRS in three, G and RA in a second region.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_RAGRS', 'Standard_GZRS', 'Standard_RAGZRS'])
param storageRedundancy string = 'Standard_LRS'

@description('Days until a finished generation and its pictures are deleted.')
@minValue(1)
@maxValue(3650)
param retentionDays int = 30

@description('Days that a deleted picture can still be brought back, and is still there. 1 is the least.')
@minValue(1)
@maxValue(365)
param softDeleteDays int = 7

// ---- Events ----

@description('Make an Event Grid topic, to which the app publishes that a generation is finished.')
param eventGridTopic bool = false

@description('Make a queue, generations-done, that gets a message for each finished generation without the app doing anything.')
param blobCreatedEvents bool = false

// ---- Network ----

@description('Make a network with private endpoints, and close storage, models and vault to the internet. Links to pictures then work inside the network only.')
param network bool = false

@description('Address space of the network, /24 or larger.')
param networkAddressPrefix string = '10.20.0.0/24'

@description('With network: whether the app itself still answers the internet. If not, deploy from inside.')
param appIsPublic bool = true

// ---- Watching, and what it costs ----

@description('Days that logs are kept; 30 are free of charge, 31 for Application Insights.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('GB of logs a day, then nothing is written until the next day, and no alert fires. -1: no cap.')
@minValue(-1)
@maxValue(1000)
param logDailyCapGb int = 1

@description('Make alert rules. Each costs a little each month: docs/deploy.md.')
param alerts bool = true

@description('Who gets alerts and budget warnings by mail, separated by commas; empty: they show in the portal only.')
param alertEmails string = ''

@description('Failed generations in 15 minutes that raise an alert. Refused prompts are not counted.')
@minValue(1)
param alertFailedGenerations int = 5

@description('429 answers of the image service in 15 minutes that raise an alert.')
@minValue(1)
param alertThrottledCalls int = 100

@description('Budget of the resource group per month, in the currency of the subscription; 0: none. It warns, and stops nothing.')
@minValue(0)
param monthlyBudget int = 50

@description('First day of the month in which the budget was first made. Azure refuses to change it: give the same in every later deployment. `azd up` remembers it.')
@maxLength(10)
param budgetStartDate string = utcNow('yyyy-MM-01')

// ---- What follows from all that ----

var resourceToken = toLower(uniqueString(subscription().id, environmentName, location))
var tags = union(extraTags, { 'azd-env-name': environmentName })
var emails = empty(alertEmails) ? [] : map(split(alertEmails, ','), email => trim(email))

var identityName = 'id-${resourceToken}'
var identityId = resourceId(
  subscription().subscriptionId,
  group.name,
  'Microsoft.ManagedIdentity/userAssignedIdentities',
  identityName
)
var storageName = 'st${resourceToken}'

var generationsContainer = 'generations'
var imagesContainer = 'images'
var packageContainer = 'app-package'

var makesImageAccount = empty(existingImageAccountName)
var imageAccountName = makesImageAccount ? 'ai-${resourceToken}' : existingImageAccountName
var widerRole = grantCognitiveServicesUser || contains(['flux', 'mai'], imageApi)
var makesVault = keyVault || compatApiKeysInKeyVault || webhookSecretInKeyVault
var vaultName = 'kv-${resourceToken}'

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: empty(resourceGroupName) ? 'rg-${environmentName}' : resourceGroupName
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: {
    name: identityName
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    resourceToken: resourceToken
    logRetentionDays: logRetentionDays
    logDailyCapGb: logDailyCapGb
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: storageName
    location: location
    tags: tags
    skuName: storageRedundancy
    containerNames: {
      generations: generationsContainer
      images: imagesContainer
      package: packageContainer
    }
    queueNames: ['generations-due', 'generation-requests']
    retentionDays: retentionDays
    softDeleteDays: softDeleteDays
    isPrivate: network
    workspaceId: monitoring.outputs.workspaceId
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
    principalId: principalId
    principalType: principalType
  }
}

module imageAccount 'modules/image-account.bicep' = if (makesImageAccount) {
  scope: group
  params: {
    name: imageAccountName
    location: empty(imageAccountLocation) ? location : imageAccountLocation
    tags: tags
    kind: imageAccountKind
    deployments: concat(
      [
        {
          name: imageDeploymentName
          modelFormat: imageModelFormat
          modelName: imageModelName
          modelVersion: empty(imageModelVersion) ? null : imageModelVersion
          skuName: imageModelSku
          capacity: imageModelCapacity
        }
      ],
      moreImageDeployments
    )
    isPrivate: network
    workspaceId: monitoring.outputs.workspaceId
  }
}

module imageAccess 'modules/image-access.bicep' = {
  scope: resourceGroup(makesImageAccount ? group.name : existingImageAccountResourceGroup)
  params: {
    accountName: imageAccountName
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
    principalId: principalId
    principalType: principalType
    grantCognitiveServicesUser: widerRole
  }
  dependsOn: [imageAccount]
}

module topic 'modules/event-grid-topic.bicep' = if (eventGridTopic) {
  scope: group
  params: {
    name: 'evgt-${resourceToken}'
    location: location
    tags: tags
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
    isPrivate: network
  }
}

module finishedEvents 'modules/blob-created-events.bicep' = if (blobCreatedEvents) {
  scope: group
  params: {
    name: 'evgs-${resourceToken}'
    location: location
    tags: tags
    storageAccountName: storageName
    generationsContainerName: generationsContainer
    queueName: 'generations-done'
  }
  dependsOn: [storage]
}

module vault 'modules/key-vault.bicep' = if (makesVault) {
  scope: group
  params: {
    name: vaultName
    location: location
    tags: tags
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
    principalId: principalId
    principalType: principalType
    isPrivate: network
    workspaceId: monitoring.outputs.workspaceId
  }
}

module vnet 'modules/network.bicep' = if (network) {
  scope: group
  params: {
    location: location
    tags: tags
    resourceToken: resourceToken
    addressPrefix: networkAddressPrefix
  }
}

module blobEndpoint 'modules/private-endpoint.bicep' = if (network) {
  scope: group
  params: {
    name: 'pe-blob-${resourceToken}'
    location: location
    tags: tags
    targetId: storage.outputs.id
    groupId: 'blob'
    zoneNames: ['privatelink.blob.${environment().suffixes.storage}']
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

module queueEndpoint 'modules/private-endpoint.bicep' = if (network) {
  scope: group
  params: {
    name: 'pe-queue-${resourceToken}'
    location: location
    tags: tags
    targetId: storage.outputs.id
    groupId: 'queue'
    zoneNames: ['privatelink.queue.${environment().suffixes.storage}']
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

module imageAccountEndpoint 'modules/private-endpoint.bicep' = if (network) {
  scope: group
  params: {
    name: 'pe-images-${resourceToken}'
    location: location
    tags: tags
    targetId: imageAccess.outputs.accountId
    groupId: 'account'
    zoneNames: [
      'privatelink.cognitiveservices.azure.com'
      'privatelink.openai.azure.com'
      'privatelink.services.ai.azure.com'
    ]
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

module vaultEndpoint 'modules/private-endpoint.bicep' = if (network && makesVault) {
  scope: group
  params: {
    name: 'pe-vault-${resourceToken}'
    location: location
    tags: tags
    targetId: vault!.outputs.id
    groupId: 'vault'
    zoneNames: ['privatelink.vaultcore.azure.net']
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

module topicEndpoint 'modules/private-endpoint.bicep' = if (network && eventGridTopic) {
  scope: group
  params: {
    name: 'pe-topic-${resourceToken}'
    location: location
    tags: tags
    targetId: topic!.outputs.id
    groupId: 'topic'
    zoneNames: ['privatelink.eventgrid.azure.net']
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

var imageHosts = {
  images: 'openai.azure.com'
  operations: 'openai.azure.com'
  flux: 'api.cognitive.microsoft.com'
  mai: 'services.ai.azure.com'
}

module app 'modules/function-app.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    resourceToken: resourceToken
    serviceName: 'api'
    identityId: identityId
    identityClientId: identity.outputs.clientId
    insightsConnectionString: monitoring.outputs.insightsConnectionString
    packageContainerUrl: '${storage.outputs.blobEndpoint}${packageContainer}'
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    httpConcurrency: httpConcurrency
    alwaysReadyHttpInstances: alwaysReadyHttpInstances
    subnetId: network ? vnet!.outputs.appSubnetId : ''
    isPublic: !network || appIsPublic
    settingsFromResources: concat(
      [
        { name: 'AzureWebJobsStorage__blobServiceUri', value: storage.outputs.blobEndpoint }
        { name: 'AzureWebJobsStorage__queueServiceUri', value: storage.outputs.queueEndpoint }
        {
          name: 'AZURE_OPENAI_ENDPOINT'
          value: empty(imageEndpoint)
            ? 'https://${imageAccess.outputs.subdomain}.${imageHosts[imageApi]}'
            : imageEndpoint
        }
      ],
      eventGridTopic ? [{ name: 'EVENTGRID_TOPIC_ENDPOINT', value: topic!.outputs.endpoint }] : []
    )
    settings: {
      AZURE_OPENAI_SCOPE: imageTokenScope
      AZURE_OPENAI_API: imageApi
      AZURE_OPENAI_API_VERSION: imageApiVersion
      AZURE_OPENAI_DEPLOYMENT: imageDeploymentName
      IMAGE_DEPLOYMENTS: empty(imageDeployments) ? '' : string(imageDeployments)
      REPEAT_LOST_CALLS: repeatLostCalls ? 'true' : 'false'
      OPERATION_LOCATION_ALLOWED_ORIGINS: operationLocationAllowedOrigins
      IMAGE_URL_ALLOWED_HOSTS: imageUrlAllowedHosts
      POLL_SCHEDULE: pollSchedule
      GENERATIONS_CONTAINER: generationsContainer
      IMAGES_CONTAINER: imagesContainer
      GENERATION_TIMEOUT_SECONDS: string(generationTimeoutSeconds)
      SAS_LIFETIME_SECONDS: string(sasLifetimeSeconds)
      MAX_IMAGE_BYTES: string(maxImageBytes)
      MAX_ACTIVE_GENERATIONS: string(maxActiveGenerations)
      MAX_DUE_PER_INSTANCE: string(maxDuePerInstance)
      RETENTION_DAYS: string(retentionDays)
      PUBLIC_BASE_URL: publicBaseUrl
      COMPAT_API_KEYS: compatApiKeysInKeyVault
        ? '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=COMPAT-API-KEYS)'
        : ''
      WEBHOOK_SECRET: webhookSecretInKeyVault
        ? '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=WEBHOOK-SECRET)'
        : ''
      WEBHOOK_ALLOWED_HOSTS: webhookAllowedHosts
    }
  }
  // The app reads from its first second: not before the way there is open.
  dependsOn: [blobEndpoint, queueEndpoint, imageAccountEndpoint, vault, vaultEndpoint, topicEndpoint]
}

module appEndpoint 'modules/private-endpoint.bicep' = if (network && !appIsPublic) {
  scope: group
  params: {
    name: 'pe-app-${resourceToken}'
    location: location
    tags: tags
    targetId: app.outputs.id
    groupId: 'sites'
    zoneNames: ['privatelink.azurewebsites.net']
    networkId: vnet!.outputs.id
    subnetId: vnet!.outputs.endpointSubnetId
  }
}

module alertRules 'modules/alerts.bicep' = if (alerts) {
  scope: group
  params: {
    location: location
    tags: tags
    resourceToken: resourceToken
    workspaceId: monitoring.outputs.workspaceId
    emails: emails
    failedGenerations: alertFailedGenerations
    throttledCalls: alertThrottledCalls
    // A generation that is older than its own deadline should have ended; ten minutes for the last tries.
    oldestActiveSeconds: generationTimeoutSeconds + 600
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

module budget 'modules/budget.bicep' = if (monthlyBudget > 0 && !empty(budgetStartDate)) {
  scope: group
  params: {
    name: 'budget-${resourceToken}'
    amount: monthlyBudget
    startDate: budgetStartDate
    emails: emails
  }
}

// ---- For the next person; no secret among them ----

output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_APP_NAME string = app.outputs.name
output AZURE_STORAGE_ACCOUNT_NAME string = storage.outputs.name
output AZURE_APPLICATION_INSIGHTS_NAME string = monitoring.outputs.insightsName

@description('Name of the image account, new or existing.')
output IMAGE_ACCOUNT_NAME string = imageAccountName

@description('Where the API is.')
output BASE_URL string = empty(publicBaseUrl) ? 'https://${app.outputs.hostName}/api' : publicBaseUrl

output GENERATIONS_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${generationsContainer}'
output IMAGES_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${imagesContainer}'

@description('Prints the function key that POST and GET /generations want as x-functions-key.')
output FUNCTION_KEY_COMMAND string = 'az functionapp keys list --resource-group ${group.name} --name ${app.outputs.name} --query functionKeys.default --output tsv'

@description('Endpoint of the Event Grid topic; empty: none.')
output EVENT_GRID_TOPIC_ENDPOINT string = eventGridTopic ? topic!.outputs.endpoint : ''

@description('Name of the Key Vault; empty: none.')
output KEY_VAULT_NAME string = makesVault ? vaultName : ''
