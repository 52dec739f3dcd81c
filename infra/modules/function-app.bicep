// The function app on Flex Consumption, where each plan holds one app.

param location string
param tags { *: string }

@description('Suffix of the resource names.')
param resourceToken string

@description('Name of the service in azure.yaml. `azd deploy` finds the app by it.')
param serviceName string

param identityId string
param identityClientId string

param insightsConnectionString string

@description('URL of the container of the deployment package.')
param packageContainerUrl string

param instanceMemoryMB int
param maximumInstanceCount int
param httpConcurrency int
param alwaysReadyHttpInstances int
param alwaysReadyQueueInstances int

@description('Number of functions with a queue trigger.')
param queueFunctions int

@allowed(['Recreate', 'RollingUpdate'])
param updateStrategy string

@description('Subnet for all outbound traffic of the app. Empty: none.')
param subnetId string

@description('Whether the app accepts requests from outside the network.')
param isPublic bool

@description('Whether worker and host export OpenTelemetry.')
param openTelemetry bool

@description('App settings whose values are known before the deployment. The app uses its default for an empty one.')
param settings { *: string }

type appSetting = { name: string, value: string }

@description('App settings whose values only the deployment knows. They are apart so that what-if and the tests know the names of all settings.')
param settingsFromResources appSetting[]

var platformSettings appSetting[] = [
  { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
  { name: 'AzureWebJobsStorage__clientId', value: identityClientId }
  { name: 'AZURE_CLIENT_ID', value: identityClientId }
  { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: insightsConnectionString }
  { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${identityClientId};Authorization=AAD' }
  { name: 'PYTHON_THREADPOOL_THREAD_COUNT', value: string(threads) }
  { name: 'PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY', value: openTelemetry ? 'true' : 'false' }
  { name: 'AzureFunctionsJobHost__telemetryMode', value: openTelemetry ? 'OpenTelemetry' : 'ApplicationInsights' }
  // These instrumentations would export URLs with their signatures.
  {
    name: 'OTEL_PYTHON_DISABLED_INSTRUMENTATIONS'
    value: 'azure_sdk,django,fastapi,flask,httpx,psycopg2,requests,urllib,urllib3'
  }
]

// A thread for everything that the platform may start in one instance at the same time: HTTP requests, messages of each
// queue, and the timer. With fewer, calls of the image service would wait for each other until functionTimeout.
var queues = loadJsonContent('../../host.json', '$.extensions.queues')
var threads = httpConcurrency + queueFunctions * (queues.batchSize + queues.newBatchThreshold) + 1

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'plan-${resourceToken}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    tier: 'FlexConsumption'
    name: 'FC1'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: 'func-${resourceToken}'
  location: location
  tags: union(tags, { 'azd-service-name': serviceName })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: isPublic ? 'Enabled' : 'Disabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    keyVaultReferenceIdentity: identityId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: concat(
          alwaysReadyHttpInstances == 0 ? [] : [{ name: 'http', instanceCount: alwaysReadyHttpInstances }],
          alwaysReadyQueueInstances == 0
            ? []
            : [{ name: 'function:advance_generations', instanceCount: alwaysReadyQueueInstances }]
        )
        triggers: {
          http: {
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
      #disable-next-line BCP037 // Azure accepts it from API version 2024-11-01 on; the types of Bicep lack it.
      siteUpdateStrategy: {
        type: updateStrategy
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      appSettings: concat(
        platformSettings,
        settingsFromResources,
        map(filter(items(settings), setting => !empty(setting.value)), setting => {
          name: setting.key
          value: setting.value
        })
      )
    }
  }

  // A deployment signs in with Entra ID: publishing passwords are off.
  resource noScmPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }

  resource noFtpPassword 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }
}

output id string = app.id
output name string = app.name
output hostName string = app.properties.defaultHostName
