// A new account for image models, with its deployments. Keys are off: the app signs in with Entra ID.

import { imageDeployment } from '../types.bicep'

param location string
param tags { *: string }

@description('Name of the account, and the first label of its host names.')
param name string

param deployments imageDeployment[]

@description('Whether only private endpoints reach the resource.')
param isPrivate bool

param workspaceId string

resource account 'Microsoft.CognitiveServices/accounts@2025-12-01' = {
  name: name
  location: location
  tags: tags
  kind: 'AIServices' // OpenAI would have only the models of OpenAI
  sku: {
    name: 'S0'
  }
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
    }
  }

  // One at a time: the service refuses a second deployment while it creates the first.
  @batchSize(1)
  resource models 'deployments' = [
    for deployment in deployments: {
      name: deployment.name
      sku: {
        name: deployment.skuName
        capacity: deployment.capacity
      }
      properties: {
        model: {
          format: deployment.modelFormat
          name: deployment.modelName
          // Without a version, the service uses the default version of the model.
          version: deployment.?modelVersion
        }
        versionUpgradeOption: 'OnceNewDefaultVersionAvailable'
      }
    }
  ]
}

// Caller and result of each call. These categories contain no prompt.
#disable-next-line use-recent-api-versions // The documentation uses this version; the only stable one is from 2016.
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'Audit'
        enabled: true
      }
      {
        category: 'RequestResponse'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

output name string = account.name
