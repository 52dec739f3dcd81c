// A private endpoint for one service, and the DNS zones that resolve its public name to it inside the network.

param location string
param tags { *: string }
param name string

@description('Resource id of the target.')
param targetId string

@description('Service of the target: blob, queue, account, vault or sites.')
param groupId string

@description('Private DNS zones of that service.')
param zoneNames string[]

param networkId string
param subnetId string

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zoneName in zoneNames: {
    name: zoneName
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zoneName, index) in zoneNames: {
    parent: zones[index]
    name: 'network'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: networkId
      }
    }
  }
]

resource endpoint 'Microsoft.Network/privateEndpoints@2025-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: groupId
        properties: {
          privateLinkServiceId: targetId
          groupIds: [groupId]
        }
      }
    ]
  }

  resource names 'privateDnsZoneGroups' = {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        for (zoneName, index) in zoneNames: {
          name: replace(zoneName, '.', '-')
          properties: {
            privateDnsZoneId: zones[index].id
          }
        }
      ]
    }
  }
}
