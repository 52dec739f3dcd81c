// Log Analytics with a daily cap, and the Application Insights that the app writes to with its identity.

param location string
param tags { *: string }

@description('Ends every name in here.')
param resourceToken string

@description('Days that the logs are kept.')
param logRetentionDays int

@description('GB a day, then ingestion stops until the next day. -1: no cap.')
param logDailyCapGb int

@description('The identity of the app: may send telemetry.')
param appPrincipalId string

@description('Its resource id: names its role assignments, because it is known before anything is made, so that what-if and the tests see them.')
param appIdentityId string

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: 'log-${resourceToken}'
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: logRetentionDays
    workspaceCapping: {
      dailyQuotaGb: logDailyCapGb
    }
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-${resourceToken}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    IngestionMode: 'LogAnalytics'
    // The connection string is no secret then: it names a place, the identity opens it.
    DisableLocalAuth: true
  }
}

var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

resource appSendsTelemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, appIdentityId, monitoringMetricsPublisher)
  scope: insights
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
  }
}

output workspaceId string = workspace.id
output insightsName string = insights.name
output insightsId string = insights.id
output insightsConnectionString string = insights.properties.ConnectionString
