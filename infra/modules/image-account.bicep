// A new account for image models, with its deployments. Keys are off: callers sign in with Entra ID.

import { imageDeployment } from '../types.bicep'

param location string
param tags { *: string }

@description('Name of the account, and the first label of its host names.')
param name string

@description('AIServices has every image model; OpenAI has those of OpenAI only.')
@allowed(['AIServices', 'OpenAI'])
param kind string

param deployments imageDeployment[]

@description('Reachable through private endpoints only.')
param isPrivate bool

param workspaceId string

resource account 'Microsoft.CognitiveServices/accounts@2025-12-01' = {
  name: name
  location: location
  tags: tags
  kind: kind
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

  // One at a time: the service refuses a second deployment while one is being made.
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
          // Without a version the service takes the model's default one.
          version: deployment.?modelVersion
        }
        versionUpgradeOption: 'OnceNewDefaultVersionAvailable'
      }
    }
  ]
}

// Who called and with what result; never a prompt.
#disable-next-line use-recent-api-versions // The one that the documentation uses; the only stable one is of 2016.
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
