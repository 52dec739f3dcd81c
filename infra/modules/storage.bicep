// Everything that lasts: records, images, queues, and the package that the app runs from.

param location string
param tags { *: string }

@minLength(3)
@maxLength(24)
param name string

@description('Redundancy of the account.')
param skuName string

@description('Containers that the app works in; each is private.')
param containerNames { generations: string, images: string, package: string }

@description('Queues that trigger a function. Each gets a poison queue beside it.')
param queueNames string[]

@description('Days until finished generations and their images are deleted.')
param retentionDays int

@description('Days that a deleted or overwritten blob can be brought back.')
param softDeleteDays int

@description('Reachable through private endpoints only.')
param isPrivate bool

param workspaceId string

@description('The identity of the app.')
param appPrincipalId string

@description('Its resource id: names its role assignments, because it is known before anything is made, so that what-if and the tests see them.')
param appIdentityId string

@description('A person (or group, or pipeline) who may look into the account; empty: nobody.')
param principalId string

param principalType string

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: skuName
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    allowedCopyScope: 'AAD'
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      // Event Grid must reach the account behind its firewall: it is one of the trusted services.
      bypass: 'AzureServices'
      defaultAction: isPrivate ? 'Deny' : 'Allow'
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      deleteRetentionPolicy: {
        enabled: true
        days: softDeleteDays
      }
      containerDeleteRetentionPolicy: {
        enabled: true
        days: softDeleteDays
      }
    }

    resource containers 'containers' = [
      for container in items(containerNames): {
        name: container.value
        properties: {
          publicAccess: 'None'
        }
      }
    ]
  }

  resource queueService 'queueServices' = {
    name: 'default'

    resource queues 'queues' = [
      for queue in flatten(map(queueNames, queue => [queue, '${queue}-poison'])): {
        name: queue
      }
    ]
  }

  resource retention 'managementPolicies' = {
    name: 'default'
    properties: {
      policy: {
        rules: [
          {
            name: 'delete-images'
            enabled: true
            type: 'Lifecycle'
            definition: {
              filters: {
                blobTypes: ['blockBlob']
                prefixMatch: ['${containerNames.images}/']
              }
              actions: {
                baseBlob: {
                  delete: {
                    daysAfterModificationGreaterThan: retentionDays
                  }
                }
              }
            }
          }
          {
            name: 'delete-finished-generations'
            enabled: true
            type: 'Lifecycle'
            definition: {
              filters: {
                blobTypes: ['blockBlob']
                prefixMatch: ['${containerNames.generations}/done/']
              }
              actions: {
                baseBlob: {
                  delete: {
                    daysAfterModificationGreaterThan: retentionDays
                  }
                }
              }
            }
          }
          {
            // A repeated request must find its generation for as long as that can be read, and a caller may repeat
            // one for a day: hence the same days as above, but never less than two. Never active/: those are alive.
            name: 'delete-idempotency-keys'
            enabled: true
            type: 'Lifecycle'
            definition: {
              filters: {
                blobTypes: ['blockBlob']
                prefixMatch: ['${containerNames.generations}/keys/']
              }
              actions: {
                baseBlob: {
                  delete: {
                    daysAfterModificationGreaterThan: max(retentionDays, 2)
                  }
                }
              }
            }
          }
        ]
      }
    }
  }
}

// Writes and deletions, not reads: the timer reads once a second while generations are active.
#disable-next-line use-recent-api-versions // The one that the documentation uses; the only stable one is of 2016.
resource blobLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account::blobs
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

// StorageWrite is what the alert on poison messages reads.
#disable-next-line use-recent-api-versions // The one that the documentation uses; the only stable one is of 2016.
resource queueLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: account::queueService
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageWrite'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

// The account is the smallest scope that works: the host makes containers of its own for keys and leases, and a user
// delegation key (for the SAS links) belongs to the account.
var appRoles = {
  storageBlobDataOwner: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  storageQueueDataContributor: '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
}

resource appRoleAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in items(appRoles): {
    name: guid(account.id, appIdentityId, role.value)
    scope: account
    properties: {
      principalId: appPrincipalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
    }
  }
]

var personRoles = {
  storageBlobDataContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  storageQueueDataContributor: '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
}

resource personRoleAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in items(personRoles): if (!empty(principalId)) {
    name: guid(account.id, principalId, role.value)
    scope: account
    properties: {
      principalId: principalId
      principalType: principalType
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role.value)
    }
  }
]

output id string = account.id
output name string = account.name
output blobEndpoint string = account.properties.primaryEndpoints.blob
output queueEndpoint string = account.properties.primaryEndpoints.queue
