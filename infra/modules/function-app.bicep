// The app on Flex Consumption. One plan holds one app there.

param location string
param tags { *: string }

@description('Ends the names in here.')
param resourceToken string

@description('Key of the service in azure.yaml: how `azd deploy` finds this app.')
param serviceName string

param identityId string
param identityClientId string

param insightsConnectionString string

@description('Container of the deployment package, as a URL.')
param packageContainerUrl string

param instanceMemoryMB int
param maximumInstanceCount int
param httpConcurrency int
param alwaysReadyHttpInstances int

@description('Subnet that the app sends everything through; empty: none.')
param subnetId string

@description('Whether callers outside the network reach the app.')
param isPublic bool

@description('App settings whose value is known before anything is made; an empty one is left out, and the app takes its default.')
param settings { *: string }

type appSetting = { name: string, value: string }

@description('App settings whose value only the deployment knows. Apart from the others, because what-if and the tests can tell their names then.')
param settingsFromResources appSetting[]

var platformSettings appSetting[] = [
  { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
  { name: 'AzureWebJobsStorage__clientId', value: identityClientId }
  { name: 'AZURE_CLIENT_ID', value: identityClientId }
  { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: insightsConnectionString }
  { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${identityClientId};Authorization=AAD' }
  // As many threads as requests that the platform sends to one instance: more of either would wait for the other.
  { name: 'PYTHON_THREADPOOL_THREAD_COUNT', value: string(httpConcurrency) }
]

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
        alwaysReady: alwaysReadyHttpInstances == 0
          ? []
          : [
              {
                name: 'http'
                instanceCount: alwaysReadyHttpInstances
              }
            ]
        triggers: {
          http: {
            perInstanceConcurrency: httpConcurrency
          }
        }
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

  // Deployment signs in with Entra ID; the user name and password of publishing are off.
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
