// The identity of the app. It is user-assigned: its roles exist before the app starts for the first time.

@description('Name of the identity.')
param name string

param location string
param tags { *: string }

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
