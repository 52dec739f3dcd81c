@export()
@description('A deployment of an image model in the new account.')
type imageDeployment = {
  @description('Name of the deployment.')
  @minLength(2)
  @maxLength(64)
  name: string

  @description('Publisher of the model: OpenAI, "Black Forest Labs" or Microsoft.')
  modelFormat: string

  @description('Name of the model, such as gpt-image-2.')
  modelName: string

  @description('Version of the model. Missing: the default version.')
  modelVersion: string?

  @description('Deployment type, such as GlobalStandard.')
  skuName: string

  @description('Quota in units. The model and the region define what one unit allows per minute.')
  @minValue(1)
  capacity: int
}

// The setting IMAGE_DEPLOYMENTS also accepts apiKeySetting. It is missing here: the app has an identity and no keys.
@export()
@description('A deployment that the app uses: one entry of the setting IMAGE_DEPLOYMENTS.')
type appDeployment = {
  @description('Value of "model" in a request.')
  name: string
  api: 'operations' | 'images' | 'flux' | 'mai'
  @description('Missing: AZURE_OPENAI_ENDPOINT.')
  endpoint: string?
  @description('Name of the deployment. Missing: the value of name.')
  deployment: string?
  @description('Missing: AZURE_OPENAI_API_VERSION.')
  apiVersion: string?
  @description('URL path of a FLUX model. Missing: from the table of models in the app.')
  modelPath: string?
  @description('Quota of the deployment: calls per minute. Missing: the app learns it from refused calls.')
  @minValue(1)
  @maxValue(100000)
  requestsPerMinute: int?
}

@export()
@sealed()
@description('Settings of the app that most deployments leave alone. README.md explains each.')
type tuning = {
  AZURE_OPENAI_API_VERSION: string?
  @description('A gateway. Missing: the host name of the account that serves imageApi.')
  AZURE_OPENAI_ENDPOINT: string?
  @description('Missing: the capacity of a new deployment of gpt-image-1.5 or gpt-image-2; else the app learns it.')
  AZURE_OPENAI_REQUESTS_PER_MINUTE: string?
  AZURE_OPENAI_SCOPE: string?
  IMAGE_URL_ALLOWED_HOSTS: string?
  @description('Missing: what the quota can deliver before generationTimeoutSeconds ends.')
  MAX_ACTIVE_GENERATIONS: string?
  MAX_DUE_PER_INSTANCE: string?
  MAX_IMAGE_BYTES: string?
  OPERATION_LOCATION_ALLOWED_ORIGINS: string?
  PUBLIC_BASE_URL: string?
  REPEAT_LOST_CALLS: string?
  SAS_LIFETIME_SECONDS: string?
}
