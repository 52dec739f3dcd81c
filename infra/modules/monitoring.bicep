// A Log Analytics workspace with a daily limit, and Application Insights. The app signs in to it with its identity.

param location string
param tags { *: string }

@description('Suffix of the resource names.')
param resourceToken string

@description('Retention of the logs in days.')
param logRetentionDays int

@description('Daily limit in GB. Above it, ingestion stops until the next day. -1: no limit.')
param logDailyCapGb int

@description('Principal id of the identity of the app, which may send telemetry.')
param appPrincipalId string

@description('Its resource id. The names of the role assignments use it, because what-if and the tests know it before the deployment.')
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
    // Without local authentication, the connection string is only an address and no secret.
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
