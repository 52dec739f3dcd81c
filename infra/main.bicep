// Deploys the app and all its resources into one resource group. Run `azd up`, or
// `az deployment sub create --location <region> --template-file infra/main.bicep --parameters environmentName=<name> location=<region>`.
targetScope = 'subscription'

import { appDeployment, imageDeployment } from 'types.bicep'

// ---- Environment ----

@description('Name of the environment. The names of the resource group and of all resources derive from it.')
@minLength(1)
@maxLength(64)
param environmentName string

@description('Region of all resources. imageAccountLocation can place the image account in another region.')
@minLength(1)
@metadata({ azd: { type: 'location' } })
param location string

@description('Name of the resource group. Empty: rg-<environmentName>.')
@maxLength(90)
param resourceGroupName string = ''

@description('Tags of every resource, in addition to azd-env-name.')
param extraTags { *: string } = {}

@description('Object id of a person, group or pipeline that may read records, queues and images, and call the models. Empty: none.')
param principalId string = ''

@description('Type of principalId.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param principalType string = 'User'

// ---- Image models ----

@description('Name of an existing account whose models the app uses. Empty: create an account.')
@maxLength(64)
param existingImageAccountName string = ''

@description('Resource group of the existing account.')
@maxLength(90)
param existingImageAccountResourceGroup string = ''

@description('Region of the new account. Not every region offers every image model. Empty: the value of location.')
param imageAccountLocation string = ''

@description('Kind of the new account. AIServices offers every image model, OpenAI only the models of OpenAI.')
@allowed(['AIServices', 'OpenAI'])
param imageAccountKind string = 'AIServices'

@description('Name of the deployment that the app uses if a request names no model. The new account gets this deployment.')
@minLength(2)
@maxLength(64)
param imageDeploymentName string = 'gpt-image-2'

@description('Publisher of its model: OpenAI, "Black Forest Labs" or Microsoft.')
param imageModelFormat string = 'OpenAI'

@description('Model of the deployment. Models retire: see docs/models.md.')
param imageModelName string = 'gpt-image-2'

@description('Version of the model. Empty: the default version.')
param imageModelVersion string = ''

@description('Deployment type, such as GlobalStandard or DataZoneStandard. It sets the price and the processing region.')
param imageModelSku string = 'GlobalStandard'

@description('Quota of the deployment, from the quota of the subscription in that region.')
@minValue(1)
param imageModelCapacity int = 1

@description('More deployments for the new account. Make the app use them with imageDeployments.')
param moreImageDeployments imageDeployment[] = []

@description('API of the deployment: images (gpt-image), flux, mai, or the retired operations.')
@allowed(['images', 'flux', 'mai', 'operations'])
param imageApi string = 'images'

@description('Version of that API. Empty: the default of the app (for images, the v1 route).')
param imageApiVersion string = ''

@description('Endpoint of that API. Empty: the host name of the account that serves imageApi.')
param imageEndpoint string = ''

@description('Scope of the tokens for the image service. Empty: the default of the app. Newer services require https://ai.azure.com/.default.')
param imageTokenScope string = ''

@description('Deployments that a request can choose by "model". The first is the default. Empty: only imageDeploymentName.')
param imageDeployments appDeployment[] = []

@description('Grant the app Cognitive Services User in addition to Cognitive Services OpenAI User. FLUX and MAI need it: imageApi flux and mai turn it on.')
param grantCognitiveServicesUser bool = false

// ---- The app ----

@description('Schedule of the timer: NCRONTAB with six fields, UTC. Each tick bills at least one second of memory: see docs/deploy.md.')
@minLength(11)
param pollSchedule string = '0 * * * * *'

@description('Memory of one instance. 512 is enough for few and small images: see docs/deploy.md.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('Maximum number of instances. It limits the cost of a flood of requests.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Instances that always run for HTTP, to avoid cold starts. They are billed all the time.')
@minValue(0)
@maxValue(20)
param alwaysReadyHttpInstances int = 0

@description('HTTP requests that one instance handles at the same time. Python gets as many threads.')
@minValue(1)
@maxValue(100)
param httpConcurrency int = 16

@description('What an update does to running instances. Recreate ends their calls by force. RollingUpdate lets calls finish, and is a preview of Azure: see docs/deploy.md.')
@allowed(['Recreate', 'RollingUpdate'])
param updateStrategy string = 'Recreate'

@description('Public address of the app behind a gateway, with the route prefix, such as https://images.example.com/api. Empty: the host name of the app.')
param publicBaseUrl string = ''

@description('Seconds until an unfinished generation fails.')
@minValue(30)
@maxValue(86400)
param generationTimeoutSeconds int = 3600

@description('Lifetime of a link to an image, in seconds. The maximum is six days, because a user delegation key is valid for seven.')
@minValue(60)
@maxValue(518400)
param sasLifetimeSeconds int = 3600

@description('Maximum size of a stored image, in bytes. The memory of an instance must hold it.')
@minValue(1024)
@maxValue(1073741824)
param maxImageBytes int = 67108864

@description('Maximum number of unfinished generations. Above it, a new request gets status 429.')
@minValue(1)
@maxValue(100000)
param maxActiveGenerations int = 1000

@description('Maximum number of due generations that the timer processes itself. The rest go to the queue.')
@minValue(1)
@maxValue(10000)
param maxDuePerInstance int = 200

@description('Retry calls whose response was lost (may bill twice). false: such a generation fails.')
param repeatLostCalls bool = true

@description('Origins that operation-location may have in addition to the endpoint, separated by commas.')
param operationLocationAllowedOrigins string = ''

@description('Hosts that the app may download images from, separated by commas. Empty: any public https host.')
param imageUrlAllowedHosts string = ''

@description('Reserved: the app does not send webhooks yet. Hosts that webhooks may go to, separated by commas. Empty: Logic Apps and Power Automate.')
param webhookAllowedHosts string = ''

// ---- Secrets ----

@description('Create a Key Vault for the two secrets below. Write the secret first, then turn on its switch: see docs/deploy.md.')
param keyVault bool = false

@description('The vault holds the secret COMPAT-API-KEYS: the keys of the retired API. false: the app does not serve the retired API.')
param compatApiKeysInKeyVault bool = false

@description('Reserved: the app does not send webhooks yet. The vault holds the secret WEBHOOK-SECRET, which signs webhooks.')
param webhookSecretInKeyVault bool = false

// ---- Storage ----

@description('Redundancy of the data. LRS keeps three copies in one datacenter, ZRS in three zones; GRS and RAGRS add a second region.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_RAGRS', 'Standard_GZRS', 'Standard_RAGZRS'])
param storageRedundancy string = 'Standard_LRS'

@description('Days until finished generations and their images are deleted.')
@minValue(1)
@maxValue(3650)
param retentionDays int = 30

@description('Days during which a deleted image can be restored. The minimum is 1.')
@minValue(1)
@maxValue(365)
param softDeleteDays int = 7

// ---- Events ----

@description('Reserved: the app does not publish events yet. Create an Event Grid topic for completion events.')
param eventGridTopic bool = false

@description('Create the queue generations-done. Event Grid adds a message for each finished generation, without the app.')
param blobCreatedEvents bool = false

// ---- Network ----

@description('Create a virtual network with private endpoints, and close storage, models and vault to the internet. Links to images then work only inside the network.')
param network bool = false

@description('Address space of the network: a /24 or larger.')
param networkAddressPrefix string = '10.20.0.0/24'

@description('With network: whether the app accepts requests from the internet. false: deploy from inside the network.')
param appIsPublic bool = true

// ---- Monitoring and cost ----

@description('Retention of the logs in days. 30 days are free of charge, 31 for Application Insights.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Daily limit of the logs in GB. Above it, nothing is logged until the next day, and no alert fires. -1: no limit.')
@minValue(-1)
@maxValue(1000)
param logDailyCapGb int = 1

@description('Create alert rules. Each has a monthly price: see docs/deploy.md.')
param alerts bool = true

@description('Addresses for alerts and budget warnings, separated by commas. Empty: alerts show only in the portal.')
param alertEmails string = ''

@description('Failed generations in 15 minutes that raise an alert. Refused prompts do not count.')
@minValue(1)
param alertFailedGenerations int = 5

@description('Throttled calls (429 from the image service) in 15 minutes that raise an alert.')
@minValue(1)
param alertThrottledCalls int = 100

@description('Monthly budget of the resource group, in the currency of the subscription. 0: no budget. A budget warns and stops nothing.')
@minValue(0)
param monthlyBudget int = 50

@description('First day of the month in which the budget was created. Azure refuses to change it: keep the value in later deployments. `azd up` remembers it.')
@maxLength(10)
param budgetStartDate string = utcNow('yyyy-MM-01')

// ---- Derived values ----

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
    queueNames: ['generations-due', 'polls-due', 'generation-requests']
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
    updateStrategy: updateStrategy
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
  // The app reads settings and storage when it starts: the private endpoints and the vault must exist by then.
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
    // Ten minutes more than the deadline: a last try may still run.
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

// ---- Outputs for azd and its users. None is a secret ----

output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_APP_NAME string = app.outputs.name
output AZURE_STORAGE_ACCOUNT_NAME string = storage.outputs.name
output AZURE_APPLICATION_INSIGHTS_NAME string = monitoring.outputs.insightsName

@description('Name of the image account, new or existing.')
output IMAGE_ACCOUNT_NAME string = imageAccountName

@description('Base URL of the API.')
output BASE_URL string = empty(publicBaseUrl) ? 'https://${app.outputs.hostName}/api' : publicBaseUrl

output GENERATIONS_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${generationsContainer}'
output IMAGES_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${imagesContainer}'

@description('Command that prints the function key: POST and GET /generations require it in the header x-functions-key.')
output FUNCTION_KEY_COMMAND string = 'az functionapp keys list --resource-group ${group.name} --name ${app.outputs.name} --query functionKeys.default --output tsv'

@description('Endpoint of the Event Grid topic. Empty: none.')
output EVENT_GRID_TOPIC_ENDPOINT string = eventGridTopic ? topic!.outputs.endpoint : ''

@description('Name of the Key Vault. Empty: none.')
output KEY_VAULT_NAME string = makesVault ? vaultName : ''
