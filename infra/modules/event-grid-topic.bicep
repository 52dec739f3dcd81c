// A topic for completion events as CloudEvents. The app does not publish to it yet.

param location string
param tags { *: string }
param name string

@description('Principal id of the identity of the app, which may publish.')
param appPrincipalId string

@description('Its resource id. The names of the role assignments use it, because what-if and the tests know it before the deployment.')
param appIdentityId string

@description('Whether only private endpoints reach the resource.')
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
