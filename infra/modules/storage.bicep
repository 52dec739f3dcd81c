// The storage account: records, images, queues, and the deployment package of the app.

param location string
param tags { *: string }

@minLength(3)
@maxLength(24)
param name string

@description('Redundancy of the account.')
param skuName string

@description('Private containers: two that the app uses, and one for its deployment package.')
param containerNames { generations: string, images: string, package: string }

@description('Queues that trigger a function. Each gets a poison queue too.')
param queueNames string[]

@description('Days until finished generations and their images are deleted.')
param retentionDays int

@description('Days during which a deleted or overwritten blob can be restored. 0: not at all.')
param blobSoftDeleteDays int

@description('Whether only private endpoints reach the resource.')
param isPrivate bool

param workspaceId string

@description('Principal id of the identity of the app.')
param appPrincipalId string

@description('Its resource id. The names of the role assignments use it, because what-if and the tests know it before the deployment.')
param appIdentityId string

@description('Object id of a person, group or pipeline that may read the account. Empty: none.')
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
      // Event Grid is a trusted service and must pass the firewall.
      bypass: 'AzureServices'
      defaultAction: isPrivate ? 'Deny' : 'Allow'
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      // Off by default: every listing of active/ would scan each version that the app has overwritten or deleted there.
      deleteRetentionPolicy: blobSoftDeleteDays == 0 ? { enabled: false } : { enabled: true, days: blobSoftDeleteDays }
      containerDeleteRetentionPolicy: {
        enabled: true
        days: 7
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
            // Idempotency keys must last as long as their generations, and at least the day in which a caller may
            // repeat a request: a rule counts full days, so two. No rule deletes active/, throttling/ or slot.
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

// Deletions only: reads and writes are too many, because the timer polls every second while generations are active.
#disable-next-line use-recent-api-versions // The documentation uses this version; the only stable one is from 2016.
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

// The alert on poison messages reads StorageWrite.
#disable-next-line use-recent-api-versions // The documentation uses this version; the only stable one is from 2016.
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

// The account is the smallest scope that works: the host creates containers for keys and leases, and a user delegation
// key (for SAS links) belongs to the account.
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
