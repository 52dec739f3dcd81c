// Deploys the app and all its resources into one resource group. Run `azd up`, or
// `az deployment sub create --location <region> --template-file infra/main.bicep --parameters environmentName=<name> location=<region>`.
targetScope = 'subscription'

import { appDeployment, imageDeployment, tuning } from 'types.bicep'

// ---- Environment ----

@description('Name of the environment. The names of the resource group and of all resources derive from it.')
@minLength(1)
@maxLength(64)
param environmentName string

// The regions of the gpt-image models (model matrix of Azure OpenAI, July 2026) that the Flex Consumption quickstarts
// of Microsoft allow too (Azure-Samples/functions-quickstart-python-http-azd). usageName: azd offers only regions in
// which the subscription has quota for the default deployment.
@description('Region of all resources. Each of these has Flex Consumption and gpt-image models.')
@allowed(['eastus2', 'swedencentral', 'uaenorth', 'westus3'])
@metadata({ azd: { type: 'location', usageName: ['OpenAI.GlobalStandard.gpt-image-2,2'] } })
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

@description('Grant principalId those roles. false in the pipeline, which only deploys.')
param assignPrincipalRoles bool = true

// ---- Image models ----

@description('Name of an existing account whose models the app uses. Empty: create an account.')
@maxLength(64)
param existingImageAccountName string = ''

@description('Resource group of the existing account.')
@maxLength(90)
param existingImageAccountResourceGroup string = ''

@description('Region of the new account, if the quota of location is used up. Empty: the value of location.')
@allowed(['', 'eastus2', 'polandcentral', 'swedencentral', 'uaenorth', 'westus3'])
param imageAccountLocation string = ''

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

@description('Capacity of the deployment, in units: one image request per minute each for gpt-image-1.5 and 2. The quota of the subscription limits it. With an existing account, the capacity of its deployment.')
@minValue(1)
param imageModelCapacity int = 2

@description('More deployments for the new account. Make the app use them with imageDeployments.')
param moreImageDeployments imageDeployment[] = []

@description('API of the deployment: images (gpt-image), flux, mai, or the retired operations.')
@allowed(['images', 'flux', 'mai', 'operations'])
param imageApi string = 'images'

@description('Deployments that a request can choose by "model". The first is the default. Empty: only imageDeploymentName.')
param imageDeployments appDeployment[] = []

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

@description('Instances that always run for advance_generations, the queue function that calls the models. They are billed all the time.')
@minValue(0)
@maxValue(20)
param alwaysReadyQueueInstances int = 0

@description('HTTP requests that one instance handles at the same time.')
@minValue(1)
@maxValue(100)
param httpConcurrency int = 16

@description('What an update does to running instances. Recreate ends their calls by force. RollingUpdate lets calls finish, and is a preview of Azure: see docs/deploy.md.')
@allowed(['Recreate', 'RollingUpdate'])
param updateStrategy string = 'Recreate'

@description('Seconds until an unfinished generation fails. The app accepts as many generations as imageModelCapacity allows calls in this time.')
@minValue(30)
@maxValue(86400)
param generationTimeoutSeconds int = 3600

@description('Traces and metrics by OpenTelemetry. First add its package: see docs/telemetry.md.')
param openTelemetry bool = false

@description('More settings of the app. They replace the value that the template computes. Missing or empty: the default of the app.')
param extraSettings tuning = {}

// ---- Secrets ----

@description('Create a Key Vault. Write the secret into it first, then turn on the switch below: see docs/deploy.md.')
param keyVault bool = false

@description('The vault holds the secret COMPAT-API-KEYS: the keys of the retired API. false: the app does not serve the retired API.')
param compatApiKeysInKeyVault bool = false

// ---- Storage ----

@description('Redundancy of the data. LRS keeps three copies in one datacenter, ZRS in three zones; GRS and RAGRS add a second region.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_RAGRS', 'Standard_GZRS', 'Standard_RAGZRS'])
param storageRedundancy string = 'Standard_LRS'

@description('Days until finished generations and their images are deleted.')
@minValue(1)
@maxValue(3650)
param retentionDays int = 30

@description('Days during which a deleted or overwritten blob can be restored. 0: not at all. Each version is billed, and slows down the listings of the timer: see docs/deploy.md.')
@minValue(0)
@maxValue(365)
param blobSoftDeleteDays int = 0

// ---- Events ----

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

@description('Addresses for alerts and budget warnings, separated by commas. Empty: no alert rules, which have a monthly price each.')
param alertEmails string = ''

@description('Monthly budget of the resource group, in the currency of the subscription. 0: no budget. A budget warns and stops nothing.')
@minValue(0)
param monthlyBudget int = 0

@description('First day of the month in which the budget was created, which Azure refuses to change. Empty: this month. azd keeps it: it is an output too.')
@maxLength(10)
param budgetStartDate string = ''

@description('Do not set it. A parameter, because only the default of a parameter can read the clock.')
param currentMonth string = utcNow('yyyy-MM-01')

// ---- Derived values ----

var accountLocation = empty(imageAccountLocation) ? location : imageAccountLocation
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

var rolesFor = assignPrincipalRoles ? principalId : ''

var generationsContainer = 'generations'
var imagesContainer = 'images'
var packageContainer = 'app-package'
var queueNames = ['generations-due', 'polls-due', 'slots-due']

var makesImageAccount = empty(existingImageAccountName)
// An account cannot move, and a deleted one keeps its name for 48 hours: another region gets another name.
var newImageAccountName = 'ai-${toLower(uniqueString(subscription().id, environmentName, location, accountLocation))}'
var imageAccountName = makesImageAccount ? newImageAccountName : existingImageAccountName
// The routes of these APIs need a wider role than those of OpenAI.
var usesFluxOrMai = !empty(intersection(['flux', 'mai'], [imageApi, ...map(imageDeployments, entry => entry.api)]))
// One unit of these models is one request per minute; other models have other units. Of an existing deployment, neither
// the model nor the capacity is known. Empty: the app learns the rate from refused calls.
var unitIsOneRequest = makesImageAccount && contains(['gpt-image-1.5', 'gpt-image-2'], imageModelName)
var requestsPerMinute = unitIsOneRequest && empty(imageDeployments) ? string(imageModelCapacity) : ''
var makesVault = keyVault || compatApiKeysInKeyVault
var vaultName = 'kv-${resourceToken}'
// azd passes an empty string for each setting that its environment lacks.
var given = toObject(filter(items(extraSettings), one => !empty(one.?value)), one => one.key, one => one.?value ?? '')
var budgetMonth = '${take(empty(budgetStartDate) ? currentMonth : budgetStartDate, 7)}-01'

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
    queueNames: queueNames
    retentionDays: retentionDays
    blobSoftDeleteDays: blobSoftDeleteDays
    isPrivate: network
    workspaceId: monitoring.outputs.workspaceId
    appPrincipalId: identity.outputs.principalId
    appIdentityId: identityId
    principalId: rolesFor
    principalType: principalType
  }
}

module imageAccount 'modules/image-account.bicep' = if (makesImageAccount) {
  scope: group
  params: {
    name: imageAccountName
    location: accountLocation
    tags: tags
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
    #disable-next-line what-if-short-circuiting // The names of these roles need the principal: see the module.
    appPrincipalId: identity.outputs.principalId
    principalId: rolesFor
    principalType: principalType
    grantCognitiveServicesUser: usesFluxOrMai
  }
  dependsOn: [imageAccount]
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
    principalId: rolesFor
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
    alwaysReadyQueueInstances: alwaysReadyQueueInstances
    subnetId: network ? vnet!.outputs.appSubnetId : ''
    isPublic: !network || appIsPublic
    openTelemetry: openTelemetry
    queueFunctions: length(queueNames)
    settingsFromResources: concat(
      [
        { name: 'AzureWebJobsStorage__blobServiceUri', value: storage.outputs.blobEndpoint }
        { name: 'AzureWebJobsStorage__queueServiceUri', value: storage.outputs.queueEndpoint }
      ],
      contains(given, 'AZURE_OPENAI_ENDPOINT')
        ? []
        : [{ name: 'AZURE_OPENAI_ENDPOINT', value: 'https://${imageAccess.outputs.subdomain}.${imageHosts[imageApi]}' }]
    )
    settings: union(
      {
        AZURE_OPENAI_API: imageApi
        AZURE_OPENAI_DEPLOYMENT: imageDeploymentName
        AZURE_OPENAI_REQUESTS_PER_MINUTE: requestsPerMinute
        IMAGE_DEPLOYMENTS: empty(imageDeployments) ? '' : string(imageDeployments)
        POLL_SCHEDULE: pollSchedule
        GENERATIONS_CONTAINER: generationsContainer
        IMAGES_CONTAINER: imagesContainer
        GENERATION_TIMEOUT_SECONDS: string(generationTimeoutSeconds)
        // More would fail at their deadline: one unit is one call per minute.
        MAX_ACTIVE_GENERATIONS: string(min(max(imageModelCapacity * generationTimeoutSeconds / 60, 1), 100000))
        RETENTION_DAYS: string(retentionDays)
        COMPAT_API_KEYS: compatApiKeysInKeyVault
          ? '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=COMPAT-API-KEYS)'
          : ''
      },
      given
    )
  }
  // The app reads settings and storage when it starts: the private endpoints and the vault must exist by then.
  dependsOn: [blobEndpoint, queueEndpoint, imageAccountEndpoint, vault, vaultEndpoint]
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

module alertRules 'modules/alerts.bicep' = if (!empty(emails)) {
  scope: group
  params: {
    location: location
    tags: tags
    resourceToken: resourceToken
    workspaceId: monitoring.outputs.workspaceId
    emails: emails
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

module budget 'modules/budget.bicep' = if (monthlyBudget > 0) {
  scope: group
  params: {
    name: 'budget-${resourceToken}'
    amount: monthlyBudget
    startDate: budgetMonth
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
output BASE_URL string = given.?PUBLIC_BASE_URL ?? 'https://${app.outputs.hostName}/api'

output GENERATIONS_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${generationsContainer}'
output IMAGES_CONTAINER_URL string = '${storage.outputs.blobEndpoint}${imagesContainer}'

@description('Command that prints the function key: POST and GET /generations require it in the header x-functions-key.')
output FUNCTION_KEY_COMMAND string = 'az functionapp keys list --resource-group ${group.name} --name ${app.outputs.name} --query functionKeys.default --output tsv'

@description('Name of the Key Vault. Empty: none.')
output KEY_VAULT_NAME string = makesVault ? vaultName : ''

@description('azd stores outputs, and forgets them after `azd down`: the next deployment gets the month of the budget. Empty: no budget yet.')
output BUDGET_START_DATE string = monthlyBudget == 0 && empty(budgetStartDate) ? '' : budgetMonth
