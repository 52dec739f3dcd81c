// A budget with warnings. It never stops a resource.

@description('Name of the budget.')
param name string

@description('Monthly amount in the currency of the subscription.')
param amount int

@description('First day of the month in which the budget was created, such as 2026-12-01. Azure refuses to change it.')
param startDate string

@description('Mail addresses for the warnings, in addition to the owners of the resource group.')
param emails string[]

var thresholds = [
  { name: 'half-spent', operator: 'GreaterThanOrEqualTo', threshold: 50, thresholdType: 'Actual' }
  { name: 'all-spent', operator: 'GreaterThanOrEqualTo', threshold: 100, thresholdType: 'Actual' }
  { name: 'will-be-overspent', operator: 'GreaterThan', threshold: 110, thresholdType: 'Forecasted' }
]

resource budget 'Microsoft.Consumption/budgets@2026-06-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: startDate
    }
    notifications: toObject(thresholds, warning => warning.name, warning => {
      enabled: true
      operator: warning.operator
      threshold: warning.threshold
      thresholdType: warning.thresholdType
      contactEmails: emails
      contactRoles: ['Owner']
    })
  }
}
