// A virtual network with two subnets: one for the outbound traffic of the app, one for the private endpoints.

param location string
param tags { *: string }

@description('Suffix of the resource names.')
param resourceToken string

@description('Address space: a /24 or larger, such as 10.20.0.0/24.')
param addressPrefix string

resource appRules 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-app-${resourceToken}'
  location: location
  tags: tags
}

resource endpointRules 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-endpoints-${resourceToken}'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'https-from-the-network'
        properties: {
          access: 'Allow'
          direction: 'Inbound'
          priority: 100
          protocol: 'Tcp'
          sourceAddressPrefix: 'VirtualNetwork'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '443'
        }
      }
      {
        name: 'nothing-else'
        properties: {
          access: 'Deny'
          direction: 'Inbound'
          priority: 4096
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: 'vnet-${resourceToken}'
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [addressPrefix]
    }
    subnets: [
      {
        name: 'app'
        properties: {
          // Twice the minimum of Flex Consumption, a /27.
          addressPrefix: cidrSubnet(addressPrefix, 26, 0)
          networkSecurityGroup: {
            id: appRules.id
          }
          delegations: [
            {
              name: 'flex-consumption'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 27, 2)
          privateEndpointNetworkPolicies: 'NetworkSecurityGroupEnabled'
          networkSecurityGroup: {
            id: endpointRules.id
          }
        }
      }
    ]
  }

  resource appSubnet 'subnets' existing = {
    name: 'app'
  }

  resource endpointSubnet 'subnets' existing = {
    name: 'endpoints'
  }
}

output id string = network.id
output appSubnetId string = network::appSubnet.id
output endpointSubnetId string = network::endpointSubnet.id
