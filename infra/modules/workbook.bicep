// A workbook in the portal: outcomes, durations, waiting generations, failures, defects and outages, responses of the image service.

param location string
param tags { *: string }
param workspaceId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'generations')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    category: 'workbook'
    displayName: 'Image generations'
    sourceId: workspaceId
    serializedData: loadTextContent('../workbook.json')
  }
}
