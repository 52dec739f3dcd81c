// Where the app publishes that a generation is finished, as CloudEvents.

param location string
param tags { *: string }
param name string

@description('The identity of the app: may publish.')
param appPrincipalId string

@description('Its resource id: names its role assignments, because it is known before anything is made, so that what-if and the tests see them.')
param appIdentityId string

@description('Reachable through private endpoints only.')
param isPrivate bool

resource topic 'Microsoft.EventGrid/topics@2025-02-15' = {
  name: name
  location: location
  tags: tags
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    inputSchema: 'CloudEventSchemaV1_0'
    disableLocalAuth: true
    minimumTlsVersionAllowed: '1.2'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
  }
}

var eventGridDataSender = 'd5a91429-5739-47e2-a06b-3470a27159e7'

resource appPublishes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(topic.id, appIdentityId, eventGridDataSender)
  scope: topic
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', eventGridDataSender)
  }
}

output id string = topic.id
output endpoint string = topic.properties.endpoint
