// What somebody should hear of. Each rule reads the log events of the app (their names: imagegen/, docs/deploy.md).
// Counts are of ItemCount, not of rows: where telemetry is sampled, one row stands for several.

param location string
param tags { *: string }

@description('Ends the names in here.')
param resourceToken string

param workspaceId string

@description('Who gets a mail. Empty: alerts are raised, and seen in the portal only.')
param emails string[]

@description('Failed generations in 15 minutes that are one too many. Refused prompts are not counted.')
param failedGenerations int

@description('Times that the image service answered 429 in 15 minutes that are one too many.')
param throttledCalls int

@description('Age of the oldest active generation, in seconds, that is one too many.')
param oldestActiveSeconds int

type rule = {
  @description('Ends the name of the rule.')
  name: string
  displayName: string
  description: string
  @description('0 critical to 4 verbose.')
  severity: int
  @description('Ends in one row with one number.')
  query: string
  @description('The column with the number.')
  column: string
  operator: 'GreaterThan' | 'LessThan'
  threshold: int
  @description('ISO 8601: how often, and over how long.')
  every: string
  window: string
}

var rules rule[] = [
  {
    name: 'failed'
    displayName: 'Generations fail'
    description: 'generation.failed, without those whose prompt was refused. The code= of the events says why.'
    severity: 2
    query: '''
      AppTraces
      | where Message startswith "generation.failed "
      | where not(Message has_any ("code=contentFilter", "code=invalidPayload"))
      | summarize Failed = sum(ItemCount)
    '''
    column: 'Failed'
    operator: 'GreaterThan'
    threshold: failedGenerations - 1
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'stuck'
    displayName: 'A generation raises an error each time it is touched'
    description: 'generation.stuck: a defect or a damaged record. The event has the id and the place in the code.'
    severity: 1
    query: '''
      AppTraces
      | where Message startswith "generation.stuck "
      | summarize Stuck = sum(ItemCount)
    '''
    column: 'Stuck'
    operator: 'GreaterThan'
    threshold: 0
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'poison'
    displayName: 'A message went to a poison queue'
    description: 'A message failed as often as host.json allows. It waits in the queue that ends in -poison.'
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
    name: 'oldest'
    displayName: 'The oldest active generation is too old'
    description: 'oldest_seconds of poll.done: the timer runs, and does not get through.'
    severity: 2
    query: '''
      AppTraces
      | where Message startswith "poll.done "
      | extend Oldest = tolong(extract(@"\boldest_seconds=(\d+)", 1, Message))
      | summarize Oldest = max(Oldest)
    '''
    column: 'Oldest'
    operator: 'GreaterThan'
    threshold: oldestActiveSeconds
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'silent'
    displayName: 'The timer is silent'
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
    name: 'throttled'
    displayName: 'The image service throttles'
    description: 'upstream.unavailable with status 429: nothing is lost, all is slower. Ask for more quota.'
    severity: 3
    query: '''
      AppTraces
      | where Message startswith "upstream.unavailable " and Message has "status 429"
      | summarize Throttled = sum(ItemCount)
    '''
    column: 'Throttled'
    operator: 'GreaterThan'
    threshold: throttledCalls - 1
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'unauthorized'
    displayName: 'The image service refuses the identity of the app'
    description: 'status=401 or 403 on an upstream event: the role on the image account, or its network rules.'
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
  {
    name: 'storage'
    displayName: 'Storage does not answer the app'
    description: 'storage.unavailable: the status= of the events says why; 403 is a role or a network rule.'
    severity: 1
    query: '''
      AppTraces
      | where Message startswith "storage.unavailable "
      | summarize Unavailable = sum(ItemCount)
    '''
    column: 'Unavailable'
    operator: 'GreaterThan'
    threshold: 2
    every: 'PT15M'
    window: 'PT15M'
  }
  {
    name: 'settings'
    displayName: 'The settings of the app are wrong'
    description: 'settings.invalid: the event names each setting that is missing or wrong, and how to mend it.'
    severity: 1
    query: '''
      AppTraces
      | where Message startswith "settings.invalid "
      | summarize Invalid = sum(ItemCount)
    '''
    column: 'Invalid'
    operator: 'GreaterThan'
    threshold: 0
    every: 'PT15M'
    window: 'PT15M'
  }
]

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
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
      // On the first day some tables are not there yet: an empty one is made by the first row.
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
        actionGroups: empty(emails) ? [] : [mail.id]
      }
    }
  }
]
