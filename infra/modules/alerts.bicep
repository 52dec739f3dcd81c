// The alert rules that need a person, on the log of the app. docs/deploy.md lists them with what to do. Each has a
// monthly price: the workbook shows everything else.
// Queries sum ItemCount instead of counting rows: one row of sampled telemetry stands for several events.

param location string
param tags { *: string }

@description('Suffix of the resource names.')
param resourceToken string

param workspaceId string

@description('Mail addresses for alerts.')
param emails string[]

type rule = {
  @description('Part of the resource name.')
  name: string
  displayName: string
  description: string
  @description('0 (critical) to 4 (verbose).')
  severity: int
  @description('KQL that returns one row with one number.')
  query: string
  @description('Name of the column with that number.')
  column: string
  operator: 'GreaterThan' | 'LessThan'
  threshold: int
  @description('Interval between two evaluations, as an ISO 8601 duration.')
  every: string
  @description('Time range of each evaluation, as an ISO 8601 duration.')
  window: string
}

var rules rule[] = [
  {
    name: 'failed'
    displayName: 'Generations fail'
    description: 'generation.failed events, except for refused prompts. The field code gives the reason.'
    severity: 2
    query: '''
      AppTraces
      | where Message startswith "generation.failed "
      | where not(Message has_any ("code=contentFilter", "code=invalidPayload"))
      | summarize Failed = sum(ItemCount)
    '''
    column: 'Failed'
    operator: 'GreaterThan'
    threshold: 4
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'poison'
    displayName: 'A message is in a poison queue'
    description: 'A message failed as often as host.json allows. It waits in the queue whose name ends in -poison.'
    severity: 1
    query: '''
      union isfuzzy=true
        (StorageQueueLogs
        | where OperationName == "PutMessage" and Uri contains "-poison/"
        | project ItemCount = int(1)),
        (AppTraces
        | where Message has "MaxDequeueCount" and Message contains "-poison"
        | project ItemCount)
      | summarize Poisoned = sum(ItemCount)
    '''
    column: 'Poisoned'
    operator: 'GreaterThan'
    threshold: 0
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'silent'
    displayName: 'The timer does not run'
    description: 'No run of poll_operations in two hours: the app is stopped, cannot start, or its identity lost a role.'
    severity: 1
    query: '''
      AppRequests
      | where OperationName == "poll_operations"
      | summarize Runs = sum(ItemCount)
    '''
    column: 'Runs'
    operator: 'LessThan'
    threshold: 1
    every: 'PT1H'
    window: 'PT2H'
  }
  {
    name: 'unauthorized'
    displayName: 'The image service refuses the identity of the app'
    description: 'Upstream events with status 401 or 403: check the role on the image account, and its network rules.'
    severity: 1
    query: '''
      AppTraces
      | where Message startswith "upstream." and Message matches regex @"\bstatus=40[13]\b"
      | summarize Refused = sum(ItemCount)
    '''
    column: 'Refused'
    operator: 'GreaterThan'
    threshold: 0
    every: 'PT15M'
    window: 'PT15M'
  }
]

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-${resourceToken}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'imagegen'
    emailReceivers: [
      for (email, index) in emails: {
        name: 'mail-${index}'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: 'alert-${rule.name}-${resourceToken}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: rule.displayName
      description: rule.description
      enabled: true
      severity: rule.severity
      scopes: [workspaceId]
      evaluationFrequency: rule.every
      windowSize: rule.window
      // On the first day some tables do not exist: the first row creates each table.
      skipQueryValidation: true
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: rule.query
            metricMeasureColumn: rule.column
            timeAggregation: 'Maximum'
            operator: rule.operator
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: [mail.id]
      }
    }
  }
]
