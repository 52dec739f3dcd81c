// Roles on the image account, which may be an existing account in another resource group.

@description('Name of the account.')
param accountName string

@description('Principal id of the identity of the app. The names of its role assignments depend on it: an existing account outlives the identity, and Azure refuses to give an old assignment a new principal.')
param appPrincipalId string

@description('Object id of a person, group or pipeline that may call the models. Empty: none.')
param principalId string

param principalType string

@description('Grant Cognitive Services User too. The routes of FLUX and MAI require this wider role.')
param grantCognitiveServicesUser bool

resource account 'Microsoft.CognitiveServices/accounts@2025-12-01' existing = {
  name: accountName
}

var openAiUser = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'
var cognitiveServicesUser = 'a97b65f3-24c7-4388-baec-2e87135dc908'

resource appRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, appPrincipalId, openAiUser)
  scope: account
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAiUser)
  }
}

resource appWiderRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (grantCognitiveServicesUser) {
  name: guid(account.id, appPrincipalId, cognitiveServicesUser)
  scope: account
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', cognitiveServicesUser)
  }
}

resource personRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(principalId)) {
  name: guid(account.id, principalId, openAiUser)
  scope: account
  properties: {
    principalId: principalId
    principalType: principalType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAiUser)
  }
}

output accountId string = account.id

@description('First label of the host names of the account.')
output subdomain string = account.properties.customSubDomainName
